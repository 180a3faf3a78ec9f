// Package metrics counts what one mount does, in the terms of Prometheus.
//
// Two decorators of the Backend count its calls, one on each side of the retries. What
// is known of files is read from the uploader when the metrics are collected.
package metrics

import (
	"log/slog"
	"net/http"
	"runtime/debug"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"uploadfs/uploader/state"
)

// Metrics are those of one mount. The methods may be called concurrently.
type Metrics struct {
	registry *prometheus.Registry
	sent     atomic.Int64 // bytes of parts that the peer has acknowledged

	attempts  *prometheus.CounterVec // by call and result
	retries   *prometheus.CounterVec // by call
	parts     prometheus.Counter
	resent    prometheus.Counter // bytes
	files     prometheus.Counter
	partTime  prometheus.Histogram
	closeTime prometheus.Histogram
	hooks     *prometheus.CounterVec // by event and result
}

// durations are the buckets of the histograms, in seconds: from a small file on a fast
// line to a file that takes the whole life of an Upload.
var durations = []float64{.05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800, 3600}

// New returns metrics that count from zero.
func New() *Metrics {
	m := &Metrics{
		registry: prometheus.NewRegistry(),
		attempts: counters("uploadfs_api_attempts_total", "Attempts of calls to the API, by call and result.", "call", "result"),
		retries:  counters("uploadfs_api_retries_total", "Attempts that failed and are repeated, by call.", "call"),
		parts:    counter("uploadfs_parts_total", "Parts that the API has acknowledged."),
		resent: counter("uploadfs_resent_bytes_total",
			"Bytes that were sent and became part of no File: of attempts that failed, of parts that changed, of Uploads that were given up."),
		files: counter("uploadfs_completed_files_total", "Files that the API has made."),
		partTime: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "uploadfs_part_duration_seconds", Help: "Time that an acknowledged part took, without failed attempts.", Buckets: durations,
		}),
		closeTime: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "uploadfs_close_duration_seconds", Help: "Time for which a close waited for its File.", Buckets: durations,
		}),
		hooks: counters("uploadfs_hooks_total", "Runs of --on-complete and --on-failure, by event and result.", "event", "result"),
	}
	m.registry.MustRegister(m.attempts, m.retries, m.parts, m.resent, m.files, m.partTime, m.closeTime, m.hooks,
		prometheus.NewCounterFunc(prometheus.CounterOpts{
			Name: "uploadfs_sent_bytes_total",
			Help: "Bytes of parts that the TCP peer has acknowledged, also in attempts that failed later.",
		}, func() float64 { return float64(m.SentBytes()) }),
		buildInfo(debug.ReadBuildInfo()),
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	)
	for _, call := range []string{callCreate, callPart, callComplete, callCancel, callFind} {
		m.retries.WithLabelValues(call)                 // zero is a value too
		m.attempts.WithLabelValues(call, resultSuccess) // the same
	}
	for _, event := range []string{HookComplete, HookFailure} {
		m.hooks.WithLabelValues(event, resultSuccess)
		m.hooks.WithLabelValues(event, resultFailure)
	}
	return m
}

func counter(name, help string) prometheus.Counter {
	return prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
}

func counters(name, help string, labels ...string) *prometheus.CounterVec {
	return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
}

// buildInfo is a metric that is always 1, with the program's version as labels.
func buildInfo(info *debug.BuildInfo, ok bool) prometheus.Collector {
	version, revision, goVersion := "(devel)", "unknown", "unknown"
	if ok {
		goVersion = info.GoVersion
		if info.Main.Version != "" {
			version = info.Main.Version
		}
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				revision = s.Value
			}
		}
	}
	g := prometheus.NewGauge(prometheus.GaugeOpts{
		Name:        "uploadfs_build_info",
		Help:        "The version of the program. The value is 1.",
		ConstLabels: prometheus.Labels{"version": version, "revision": revision, "goversion": goVersion},
	})
	g.Set(1)
	return g
}

// SentBytes is how many bytes of parts the peer has acknowledged since the mount.
func (m *Metrics) SentBytes() int64 { return m.sent.Load() }

// Closed counts a close that has waited for its File.
func (m *Metrics) Closed(waited time.Duration) { m.closeTime.Observe(waited.Seconds()) }

// The events of hooks.
const (
	HookComplete = "complete" // --on-complete
	HookFailure  = "failure"  // --on-failure
)

// Hook counts a run of a hook.
func (m *Metrics) Hook(event string, err error) {
	result := resultSuccess
	if err != nil {
		result = resultFailure
	}
	m.hooks.WithLabelValues(event, result).Inc()
}

// Handler answers with all metrics. It may be slow on a mount with many files, so few
// calls run at once.
func (m *Metrics) Handler(log *slog.Logger) http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{
		ErrorLog:            slog.NewLogLogger(log.Handler(), slog.LevelWarn),
		MaxRequestsInFlight: 4,
		Timeout:             30 * time.Second,
	})
}

// Files is what is known of a mount's files at one moment.
type Files struct {
	ByState       map[state.State]int
	OldestPending time.Time // zero where nothing is pending
	Slots         int       // for large parts
	SlotsInUse    int
	DiskFree      int64 // bytes, to this user, beside the local copies
}

// Collect has the metrics of files read from now on. read may be called concurrently.
func (m *Metrics) Collect(read func() (Files, error)) {
	m.registry.MustRegister(&collector{read: read, now: time.Now})
}

var (
	filesDesc    = prometheus.NewDesc("uploadfs_files", "Files in the mount, by state.", []string{"state"}, nil)
	pendingDesc  = prometheus.NewDesc("uploadfs_oldest_pending_seconds", "Age of the file that has waited longest to be uploaded; 0 where none waits.", nil, nil)
	slotsDesc    = prometheus.NewDesc("uploadfs_slots", "Large parts that may be sent at once (--parallel).", nil, nil)
	inUseDesc    = prometheus.NewDesc("uploadfs_slots_in_use", "Large parts that are being sent.", nil, nil)
	diskFreeDesc = prometheus.NewDesc("uploadfs_disk_free_bytes", "Space that is left for local copies.", nil, nil)
)

// collector reads what is known of files at each collection.
type collector struct {
	read func() (Files, error)
	now  func() time.Time
}

func (c *collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{filesDesc, pendingDesc, slotsDesc, inUseDesc, diskFreeDesc} {
		ch <- d
	}
}

func (c *collector) Collect(ch chan<- prometheus.Metric) {
	f, err := c.read()
	if err != nil {
		ch <- prometheus.NewInvalidMetric(filesDesc, err)
		return
	}
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	for _, s := range state.All {
		gauge(filesDesc, float64(f.ByState[s]), string(s))
	}
	age := 0.0
	if !f.OldestPending.IsZero() {
		age = max(c.now().Sub(f.OldestPending).Seconds(), 0)
	}
	gauge(pendingDesc, age)
	gauge(slotsDesc, float64(f.Slots))
	gauge(inUseDesc, float64(f.SlotsInUse))
	gauge(diskFreeDesc, float64(f.DiskFree))
}

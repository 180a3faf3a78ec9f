//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"uploadfs/uploader/api/local"
)

// How long a daemon lives in a round.
const (
	shortestLife = 100 * time.Millisecond
	longestLife  = 1500 * time.Millisecond
)

// quiet bounds the time in which everything has to be uploaded in the end.
const quiet = 3 * time.Minute

// loop is one run.
type loop struct {
	options
	ledger  ledger
	faults  *faults
	api     *local.Server
	daemon  *daemon
	writers []*writer
	random  *rand.Rand // of the loop's own goroutine
	sum     summary

	interrupted map[string]bool // at the last mount
}

// run is a whole run: rounds, and the final reckoning. The error says what was
// lost, wrong or doubled.
func run(ctx context.Context, o options) (sum summary, err error) {
	l := &loop{options: o, random: rand.New(rand.NewPCG(o.seed, 0))}
	l.sum.seed = o.seed
	began := time.Now()
	l.faults = newFaults(o.seed)
	for _, d := range []string{"up", "src"} {
		if err := os.Mkdir(filepath.Join(o.dir, d), 0o755); err != nil {
			return l.sum, err
		}
	}
	var url string
	var stop func() error
	l.api, url, stop, err = serve(o, l.faults.intercept)
	if err != nil {
		return l.sum, err
	}
	defer func() { err = errors.Join(err, stop()) }()

	l.daemon = newDaemon(o, url)
	defer func() { err = errors.Join(err, l.daemon.end()) }()
	for i := range o.writers {
		l.writers = append(l.writers, newWriter(l, i))
	}
	for range o.rounds {
		if err := l.round(ctx); err != nil {
			return l.total(), fmt.Errorf("seed %d, round %d: %w", o.seed, l.sum.rounds+1, err)
		}
		if l.sum.rounds++; l.sum.rounds%10 == 0 {
			l.log("%d rounds", l.sum.rounds)
		}
	}
	err = l.reckon(ctx)
	l.sum.took = time.Since(began)
	if err != nil {
		err = fmt.Errorf("seed %d: %w", o.seed, err)
	}
	return l.total(), err
}

// serve serves the API from a directory of the run's, until stop.
func serve(o options, intercept local.InterceptFunc) (api *local.Server, url string, stop func() error, err error) {
	api, err = local.Open(local.Options{Dir: filepath.Join(o.dir, "api"), Key: apiKey, Intercept: intercept})
	if err != nil {
		return nil, "", nil, err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, "", nil, errors.Join(err, api.Close())
	}
	served := make(chan error, 1)
	go func() { served <- api.Serve(listener) }() // ended by Close
	stop = func() error { return errors.Join(api.Close(), <-served) }
	return api, "http://" + listener.Addr().String() + "/v1", stop, nil
}

// round is the life of one daemon, from mount to kill.
func (l *loop) round(ctx context.Context) error {
	if err := l.mount(ctx); err != nil {
		return err
	}
	alive, kill := context.WithCancel(ctx)
	var running sync.WaitGroup
	errs := make(chan error, len(l.writers))
	for _, w := range l.writers {
		running.Go(func() { errs <- w.work(alive) })
	}
	life := shortestLife + time.Duration(l.random.Int64N(int64(longestLife-shortestLife)))
	select {
	case <-time.After(life):
	case <-ctx.Done():
	}
	kill() // before the daemon: what fails from now on may fail
	err := l.daemon.kill()
	running.Wait()
	close(errs)
	for e := range errs {
		err = errors.Join(err, e)
	}
	return errors.Join(err, context.Cause(ctx))
}

// mount mounts, counts what the last kill has interrupted, and compares the tree
// with the ledger.
func (l *loop) mount(ctx context.Context) error {
	began := time.Now()
	if err := l.daemon.mount(ctx); err != nil {
		return err
	}
	l.sum.slowest = max(l.sum.slowest, time.Since(began))
	files, err := l.daemon.status(ctx)
	if err != nil {
		return err
	}
	before := l.interrupted
	l.interrupted = map[string]bool{}
	for _, f := range files {
		if f.State == "interrupted" && !before[f.Path] {
			l.sum.interrupted++
		}
		if f.State == "interrupted" {
			l.interrupted[f.Path] = true
		}
	}
	return l.ledger.compareTree(l.daemon.tree())
}

// reckon lets everything come to its end, and looks what that is.
func (l *loop) reckon(ctx context.Context) error {
	l.faults.stop()
	if err := l.mount(ctx); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, quiet)
	defer cancel()
	if _, err := l.daemon.settled(ctx, "interrupted"); err != nil {
		return err
	}
	err := l.verify(ctx)
	// What no program has closed goes as it is, because the user says so now.
	err = errors.Join(err, l.retryInterrupted(ctx))
	_, unsettled := l.daemon.settled(ctx)
	err = errors.Join(err, unsettled)
	if err == nil {
		err = l.verifyRetried()
	}
	return errors.Join(err, l.daemon.unmount(ctx))
}

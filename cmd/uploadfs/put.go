package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/signal"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"uploadfs/mount"
	"uploadfs/uploader"
	"uploadfs/uploader/api"
	"uploadfs/uploader/api/openai"
	"uploadfs/uploader/api/retry"
	"uploadfs/uploader/put"
)

// putConfig holds the flags of put.
type putConfig struct {
	client   clientFlags
	spec     api.Spec // Filename only with one file
	expires  string   // seconds, "" for none
	partSize int64
	parallel int
	checksum bool
	stateDir string
	timeout  time.Duration

	recursive bool
	again     bool
	asJSON    bool
	quiet     bool
}

func putCommand() *cobra.Command {
	c := putConfig{
		spec:     api.Spec{Purpose: uploader.DefaultPurpose},
		partSize: uploader.DefaultPartSize,
		parallel: uploader.DefaultParallel,
		checksum: true,
		timeout:  uploader.DefaultCloseTimeout,
	}
	cmd := &cobra.Command{
		Use:   "put [flags] FILE...",
		Short: "upload files without a mount",
		Long: `Uploads each FILE as a mount would, in parts and in parallel. It prints the IDs of
the Files, one per line, in the order of the arguments. - is standard input. Unless
that is a file, it is copied to the state directory first: the API requires the size
before the first byte.

After Ctrl-C or a crash, the same command goes on. It does not send again what the
API has acknowledged and what still equals the file. A file that changes while it is
being sent is not published.

A FILE that was put before is compared with what was sent. If it is unchanged and the
API still has its File, put prints the ID of that File and sends nothing.

With -r a FILE may be a directory: put uploads the files in it and below it, and prints
the path beside each ID. It follows no symbolic links, and leaves out empty files and
those that a mount excludes by default.`,
		Example: `  id=$(uploadfs put --purpose fine-tune train.jsonl)
  uploadfs put -r ~/reports
  pg_dump db | gzip | uploadfs put --filename db.sql.gz -`,
		Args: takes(1, -1, "name the files to upload, - for standard input"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := c.check(cmd, args); err != nil {
				return err
			}
			return c.run(cmd, args)
		},
	}
	putFlags(cmd.Flags(), &c)
	return cmd
}

func putFlags(f *pflag.FlagSet, c *putConfig) {
	f.SortFlags = false
	f.StringVar(&c.spec.Purpose, "purpose", c.spec.Purpose, "`PURPOSE` of the Files")
	f.StringVar(&c.spec.Filename, "filename", "", "the `NAME` of the File, where it is not the file's own")
	f.StringVar(&c.spec.MimeType, "mime-type", "", "MIME `TYPE` (default: by the name's extension)")
	f.StringVar(&c.expires, "expires-after", "", "lifetime of the Files, in `SECONDS` or like 48h (default: for ever)")
	parsed(f, "part-size", "64MiB", "`SIZE` of a part, 8MiB to 64MiB, or auto", []string{"auto"}, func(s string) (err error) {
		c.partSize, err = mount.ParsePartSize(s)
		return err
	})
	f.IntVar(&c.parallel, "parallel", c.parallel, "parts in flight over all files")
	parsed(f, "checksum", "md5", "`KIND` of checksum to send: md5 or none", mount.Checksums, func(s string) error {
		kind, err := mount.ParseChoice(s, mount.Checksums)
		c.checksum = kind == "md5"
		return err
	})
	f.DurationVar(&c.timeout, "timeout", c.timeout, "give up when the API has acknowledged nothing for so long; 0 is never")
	f.StringVar(&c.stateDir, "state-dir", "",
		"`DIR` that remembers what was sent (default $XDG_STATE_HOME/uploadfs/@put, or /var/lib/uploadfs/@put as root)")
	f.BoolVarP(&c.recursive, "recursive", "r", false, "upload the files of directories too, and print the path beside each ID")
	f.BoolVar(&c.again, "again", false, "make another File of what was put before and is unchanged")
	f.BoolVar(&c.asJSON, "json", false, "print JSON, one object per file and line")
	f.BoolVarP(&c.quiet, "quiet", "q", false, "show no progress")
	c.client.add(f)
}

// check finds mistakes in the command line.
func (c *putConfig) check(cmd *cobra.Command, args []string) error {
	for i, arg := range args {
		if arg != stdinArg {
			continue
		}
		for _, other := range args[:i] {
			if other == stdinArg {
				return usage(cmd, errors.New("standard input can be read once: give - once"))
			}
		}
		if c.spec.Filename == "" {
			return usage(cmd, errors.New("standard input has no name: give it one with --filename"))
		}
	}
	if c.spec.Filename != "" && (len(args) > 1 || c.recursive) {
		return usage(cmd, errors.New("--filename names one File: give one file, without -r"))
	}
	if c.parallel < 1 || c.parallel > mount.MaxParallel {
		return usage(cmd, fmt.Errorf("parallel %d: give 1 to %d parts in flight", c.parallel, mount.MaxParallel))
	}
	if c.timeout < 0 {
		return usage(cmd, fmt.Errorf("timeout %s: give a time like 10m, or 0 for none", c.timeout))
	}
	if d, err := time.ParseDuration(c.expires); err == nil && d > 0 {
		c.expires = strconv.FormatInt(int64(d/time.Second), 10)
	}
	if err := preflightSpec(c.spec, c.expires); err != nil {
		return usage(cmd, err)
	}
	if c.expires != "" {
		seconds, err := strconv.ParseInt(c.expires, 10, 64)
		if err != nil {
			return usage(cmd, err)
		}
		c.spec.Expires = time.Duration(seconds) * time.Second
	}
	return nil
}

// run uploads the files.
func (c *putConfig) run(cmd *cobra.Command, args []string) error {
	ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // a second signal ends the process at once; the journal loses nothing by it
	if c.stateDir == "" {
		var err error
		if c.stateDir, err = defaultPutDir(); err != nil {
			return err
		}
	}
	jobs, err := c.jobs(cmd, args)
	if err != nil {
		return err
	}
	config, err := c.client.config(cmd, c.parallel)
	if err != nil {
		return err
	}
	client, err := openai.New(config)
	if err != nil {
		return err
	}
	defer client.Close()
	dir, err := put.OpenDir(c.stateDir)
	if err != nil {
		return err
	}
	for _, j := range jobs {
		if j.Name == stdinArg {
			if err := takeStdin(ctx, cmd, j, dir); err != nil {
				return err
			}
		}
	}
	acks := put.NewAcks(client)
	up, err := dir.OpenUploader(mount.Escape(endpoint(config).String()), uploader.Options{
		Backend:  retry.New(acks, retry.Options{}),
		PartSize: c.partSize,
		Parallel: c.parallel,
		Checksum: c.checksum,
	})
	if err != nil {
		return err
	}
	ctx, giveUp := context.WithCancelCause(ctx)
	defer giveUp(nil)
	if c.timeout > 0 {
		defer acks.Watch(c.timeout, giveUp)()
	}
	err = c.putAll(ctx, jobs, &put.Sender{Dir: dir, Uploader: up, Acks: acks, Parallel: c.parallel}, cmd.OutOrStdout(), cmd.ErrOrStderr())
	return errors.Join(err, up.Close())
}

// putName is the directory among those of the mounts. No mount's is called so:
// '@' is escaped in their names.
const putName = "@put"

// defaultPutDir is the state directory without --state-dir.
func defaultPutDir() (string, error) {
	mounts, err := mount.DefaultStateDir("/")
	return filepath.Join(filepath.Dir(mounts), putName), err
}

// putAll sends the files and prints the result of each, in their order.
func (c *putConfig) putAll(ctx context.Context, jobs []*put.Job, sender *put.Sender, stdout, stderr io.Writer) error {
	board := newBoard(stderr, c.quiet)
	sender.Observer = board
	wait := sender.Start(ctx, jobs)
	if board.bars != nil {
		wait() // bars and lines of the same terminal would write over each other
		board.close()
	}
	var errs []error
	for _, j := range jobs {
		errs = append(errs, c.print(stdout, j))
	}
	wait()
	board.close()
	return errors.Join(errs...)
}

// putResult is the JSON of a job that has a File.
type putResult struct {
	*uploader.Status
	Unchanged bool `json:"unchanged,omitempty"` // an earlier put has sent it
}

// print waits for a job and prints its result. The error is the job's own, or that of
// printing.
func (c *putConfig) print(w io.Writer, j *put.Job) error {
	result, failed := j.Wait()
	if failed != nil {
		failed = putFailure(j, result, failed)
	}
	var err error
	switch {
	case c.asJSON && failed != nil:
		err = json.NewEncoder(w).Encode(failedStatus(j, failed))
	case c.asJSON:
		err = json.NewEncoder(w).Encode(putResult{result, j.Unchanged()})
	case failed == nil && c.recursive:
		_, err = fmt.Fprintf(w, "%s  %s\n", result.FileID, mount.Printable(j.Name))
	case failed == nil:
		_, err = fmt.Fprintln(w, result.FileID)
	}
	return errors.Join(err, failed)
}

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"uploadfs/mount"
	"uploadfs/uploader"
	"uploadfs/uploader/state"
)

func infoCommand() *cobra.Command {
	var asJSON, superseded bool
	cmd := &cobra.Command{
		Use:   "info [--json|--superseded] PATH...",
		Short: "show everything known of a file, or list a directory",
		Long: `Shows the upload of each file, from its extended attributes, and a line for each
file of a directory and of those below it. If you may read the files, you may read
them. With --json, prints one object per file and line. With --superseded, prints
the IDs of all Files that held earlier contents, oldest first, one per line: they
still exist, and count against your quota until you delete them.`,
		Args: takes(1, -1, "name the files or directories to show"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if asJSON && superseded {
				return usage(cmd, errors.New("--json and --superseded: give one of them"))
			}
			var errs []error
			for i, path := range args {
				if isDir(path) && !superseded {
					errs = append(errs, infoDir(cmd.OutOrStdout(), path, asJSON))
					continue
				}
				st, err := readStatus(path)
				if err != nil {
					errs = append(errs, err)
					continue
				}
				if superseded {
					errs = append(errs, printSuperseded(cmd.OutOrStdout(), path, st.SupersededCount))
					continue
				}
				if asJSON {
					errs = append(errs, json.NewEncoder(cmd.OutOrStdout()).Encode(st))
					continue
				}
				if i > 0 {
					fmt.Fprintln(cmd.OutOrStdout())
				}
				errs = append(errs, printInfo(cmd.OutOrStdout(), path, st, time.Now()))
			}
			return errors.Join(errs...)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON, one object per line")
	cmd.Flags().BoolVar(&superseded, "superseded", false, "print the IDs of all Files that held earlier contents, one per line")
	return cmd
}

// infoDir lists the files of a directory and of those below it.
func infoDir(w io.Writer, dir string, asJSON bool) error {
	rep := mount.Report{MountPoint: dir, Snapshot: uploader.Snapshot{Counts: map[state.State]int{}}}
	enc := json.NewEncoder(w)
	var queued int
	err := walkFiles(dir, func(path string) error {
		st, err := readStatus(path)
		if err != nil {
			return err
		}
		if asJSON {
			return enc.Encode(st)
		}
		st.Path = path
		rep.Files = append(rep.Files, st)
		rep.Counts[st.State]++
		if st.Queued {
			queued++
		}
		return nil
	})
	if asJSON || len(rep.Files) == 0 {
		return err
	}
	rep.Matches = len(rep.Files)
	if failed := printFiles(w, &rep, time.Now()); failed != nil {
		return failed
	}
	fmt.Fprintf(w, "  %s: %s\n", mount.Printable(dir), counts(rep.Counts, queued))
	return err
}

// adviceOften is for a file of which each close has made a File.
const adviceOften = "each close makes a File: mount with --close=background, which is made for this"

// printInfo prints what has a value, one line each.
func printInfo(w io.Writer, path string, st *uploader.Status, now time.Time) error {
	fmt.Fprintln(w, mount.Printable(path))
	t := columns(w)
	line := func(name, value string) {
		if value != "" {
			row(t, "  "+name, value)
		}
	}
	stands := stateShown(st)
	if !st.Since.IsZero() {
		stands += ", " + when(st.Since, now)
	}
	line("state", stands)
	line("error", st.Error)
	if st.Calls > 0 && st.NextAttempt.IsZero() && st.Error != "" {
		line("next attempt", "now")
	}
	if !st.NextAttempt.IsZero() {
		line("next attempt", when(st.NextAttempt, now))
	}
	line("size", exactly(st.Size))
	line("file", st.FileID)
	line("upload", st.UploadID)
	if p := st.PartsDone(); p != "" {
		line("progress", fmt.Sprintf("%s parts, %s sent", p, size(st.BytesSent)))
	}
	if st.Sending() {
		line("sent", amount(st.Progress, st.Size, now))
	}
	if st.FileID == "" && !st.ExpiresAt.IsZero() {
		line("expires", when(st.ExpiresAt, now))
	}
	line("md5", st.MD5)
	line("filename", st.Filename)
	line("purpose", st.Purpose)
	line("mime type", st.MimeType)
	if n := st.FilesMade(); n > 1 {
		line("files made", fmt.Sprint(n))
	}
	earlier := strings.Join(st.Superseded, ", ")
	if more := st.SupersededCount - len(st.Superseded); more > 0 {
		earlier += fmt.Sprintf(", and %d before: uploadfs info --superseded lists all", more)
	}
	line("earlier files", earlier)
	if st.MadeOften {
		line("advice", adviceOften)
	}
	for i, id := range st.PartIDs {
		line(fmt.Sprintf("part %d", i), id)
	}
	return t.Flush()
}

// printSuperseded prints the IDs of the Files that held earlier contents of a file,
// oldest first. One value of an attribute holds about a thousand.
func printSuperseded(w io.Writer, path string, count int) error {
	for n := 0; n < count; {
		list, err := readAttr(path, uploader.SupersededFrom(n))
		if errors.Is(err, errNoAttr) {
			break // the journal, on a full disk, does not have the last ones
		}
		if err != nil {
			return fmt.Errorf("%s: %w", mount.Printable(path), err)
		}
		for id := range strings.SplitSeq(string(list), ",") {
			if _, err := fmt.Fprintln(w, id); err != nil {
				return err
			}
			n++
		}
	}
	return nil
}

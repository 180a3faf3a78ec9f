package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"uploadfs/mount"
)

func doctorCommand() *cobra.Command {
	c := mount.DefaultConfig
	var asJSON, deep bool
	cmd := &cobra.Command{
		Use:   "doctor [flags] [MOUNTPOINT]",
		Short: "check what a mount needs, and say what to do",
		Long: `Checks the machine, the state directory, the endpoint and the key, as a mount on
MOUNTPOINT with the same flags and environment would use them. It changes nothing;
--deep also creates an Upload of one byte and cancels it. Each line is ok, a note, or
says what to do. The exit status is 1 if mounts or uploads cannot work.`,
		Args: takes(0, 1, "name at most one mount point"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 {
				c.MountPoint = args[0]
			}
			environment(&c)
			return printFindings(cmd.OutOrStdout(), mount.Examine(cmd.Context(), c, deep), asJSON)
		},
	}
	f := cmd.Flags()
	f.SortFlags = false
	f.BoolVar(&asJSON, "json", false, "print JSON, one object per line")
	f.BoolVar(&deep, "deep", false, "also create an Upload and cancel it")
	f.BoolVar(&c.Embedded, "embedded", c.Embedded, "of a mount with its own API server")
	f.StringVar(&c.StateDir, "state-dir", c.StateDir, "`DIR` of the mount")
	f.StringVar(&c.Purpose, "purpose", c.Purpose, "`PURPOSE` of the Upload of --deep")
	f.StringVar(&c.APIKeyFile, "api-key-file", "", "`FILE` with the API key")
	f.BoolVar(&c.InsecureHTTP, "insecure-http", false, "allow plain http to other hosts than loopback")
	return cmd
}

func printFindings(w io.Writer, list []mount.Finding, asJSON bool) error {
	broken := 0
	enc, t := json.NewEncoder(w), columns(w)
	for _, f := range list {
		if f.Verdict == mount.Broken {
			broken++
		}
		if !asJSON {
			row(t, string(f.Verdict), f.Check, f.Message)
		} else if err := enc.Encode(f); err != nil {
			return err
		}
	}
	if err := t.Flush(); err != nil {
		return err
	}
	switch broken {
	case 0:
		return nil
	case 1:
		return errors.New("1 check failed: its line says what to do")
	}
	return fmt.Errorf("%d checks failed: their lines say what to do", broken)
}

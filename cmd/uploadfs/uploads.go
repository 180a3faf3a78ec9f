package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"uploadfs/mount"
	"uploadfs/uploader"
	"uploadfs/uploader/api"
	"uploadfs/uploader/api/openai"
)

// The raw calls: each makes one request and prints the answer. Their names and
// flags are those of the official CLI, so that a script works with either.

func uploadsCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "uploads",
		Short: "make a call of the Uploads API: create, complete, cancel",
		Long: `Makes one call of the Uploads API and prints the JSON that it answers, on one line.
Nothing is retried. Names and flags are those of the official CLI; parts are added
with uploadfs uploads:parts create.`,
		Args: takes(0, 0, "use uploads create, uploads complete or uploads cancel"),
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(uploadsCreate(), uploadsComplete(), uploadsCancel())
	return cmd
}

// rawCall makes a command of a call: it opens a client from the flags, makes the
// call, and prints the answer.
func rawCall(flags *rawFlags, needs []string, call func(cmd *cobra.Command, api openai.Raw) (string, error)) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, _ []string) error {
		if err := required(cmd, needs...); err != nil {
			return err
		}
		config, err := flags.client.config(cmd, 1)
		if err != nil {
			return err
		}
		client, err := openai.New(config)
		if err != nil {
			return err
		}
		defer client.Close()
		answer, err := call(cmd, client.Raw())
		if err != nil {
			return err
		}
		return printAnswer(cmd.OutOrStdout(), answer, flags.format)
	}
}

// formats are the values of --format. Values of the official CLI that print one
// object alike are one value here.
var formats = []string{"json", "jsonl", "raw", "pretty"}

// printAnswer prints an answer on one line, as it came, or indented.
func printAnswer(w io.Writer, answer, format string) error {
	var text bytes.Buffer
	var err error
	answer = strings.TrimSuffix(answer, "\n")
	switch format {
	case "raw":
		text.WriteString(answer)
	case "pretty":
		err = json.Indent(&text, []byte(answer), "", "  ")
	default:
		if !strings.ContainsAny(answer, "\r\n") {
			text.WriteString(answer)
			break
		}
		err = json.Compact(&text, []byte(answer))
	}
	if err != nil {
		return fmt.Errorf("the answer is no JSON: %w", err)
	}
	text.WriteByte('\n')
	_, err = w.Write(text.Bytes())
	return err
}

// rawFlags are the flags that all raw calls have.
type rawFlags struct {
	client clientFlags
	format string
}

func (r *rawFlags) add(cmd *cobra.Command) *cobra.Command {
	f := cmd.Flags()
	r.client.add(f)
	r.client.keyFlag(f)
	parsed(f, "format", formats[0], "`FORMAT` of the answer: "+strings.Join(formats, ", "), formats, func(s string) (err error) {
		r.format, err = mount.ParseChoice(s, formats)
		return err
	})
	return cmd
}

func uploadsCreate() *cobra.Command {
	var flags rawFlags
	var spec api.Spec
	var anchor string
	var seconds int64
	cmd := &cobra.Command{
		Use:     "create --bytes N --filename F --mime-type M --purpose P",
		Short:   "declare an Upload",
		Example: `  uploadfs uploads create --bytes 2147483648 --filename train.jsonl --mime-type text/jsonl --purpose fine-tune`,
		Args:    takes(0, 0, "everything is given with flags"),
	}
	f := cmd.Flags()
	f.SortFlags = false
	f.Int64Var(&spec.Bytes, "bytes", 0, "the exact size of the File, in bytes")
	f.StringVar(&spec.Filename, "filename", "", "the `NAME` of the File")
	f.StringVar(&spec.MimeType, "mime-type", "", "its MIME `TYPE`")
	f.StringVar(&spec.Purpose, "purpose", "", "its `PURPOSE`: "+strings.Join(api.Purposes, ", "))
	f.StringVar(&anchor, "expires-after.anchor", "", "what the lifetime of the File counts from: created_at")
	f.Int64Var(&seconds, "expires-after.seconds", 0, fmt.Sprintf("the lifetime of the File, %d to %d seconds", uploader.MinExpires, uploader.MaxExpires))
	cmd.RunE = rawCall(&flags, []string{"bytes", "filename", "mime-type", "purpose"}, func(cmd *cobra.Command, api openai.Raw) (string, error) {
		switch {
		case anchor != "" && anchor != "created_at":
			return "", usage(cmd, fmt.Errorf("expires-after.anchor %q: the API knows only created_at", anchor))
		case anchor != "" && !f.Changed("expires-after.seconds"):
			return "", usage(cmd, errors.New("give --expires-after.seconds with --expires-after.anchor"))
		case f.Changed("expires-after.seconds") && (seconds < uploader.MinExpires || seconds > uploader.MaxExpires):
			return "", usage(cmd, fmt.Errorf("expires-after.seconds %d: give %d to %d", seconds, uploader.MinExpires, uploader.MaxExpires))
		}
		spec.Expires = time.Duration(seconds) * time.Second
		return api.Create(cmd.Context(), spec)
	})
	return flags.add(cmd)
}

func uploadsComplete() *cobra.Command {
	var flags rawFlags
	var id, md5 string
	var parts []string
	cmd := &cobra.Command{
		Use:   "complete --upload-id U --part-id A [--part-id B]...",
		Short: "make the File out of the parts, in the order given",
		Args:  takes(0, 0, "everything is given with flags"),
	}
	f := cmd.Flags()
	f.SortFlags = false
	f.StringVar(&id, "upload-id", "", "the `ID` of the Upload")
	f.StringArrayVar(&parts, "part-id", nil, "the `ID` of the next part, in file order; repeatable")
	f.StringVar(&md5, "md5", "", "the MD5 of the whole content, in `HEX`, for the API to compare")
	cmd.RunE = rawCall(&flags, []string{"upload-id", "part-id"}, func(cmd *cobra.Command, api openai.Raw) (string, error) {
		return api.Complete(cmd.Context(), id, parts, md5)
	})
	return flags.add(cmd)
}

func uploadsCancel() *cobra.Command {
	var flags rawFlags
	var id string
	cmd := &cobra.Command{
		Use:   "cancel --upload-id U",
		Short: "end an Upload without a File",
		Args:  takes(0, 0, "everything is given with flags"),
	}
	cmd.Flags().SortFlags = false
	cmd.Flags().StringVar(&id, "upload-id", "", "the `ID` of the Upload")
	cmd.RunE = rawCall(&flags, []string{"upload-id"}, func(cmd *cobra.Command, api openai.Raw) (string, error) {
		return api.Cancel(cmd.Context(), id)
	})
	return flags.add(cmd)
}

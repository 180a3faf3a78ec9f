package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"uploadfs/mount"
	"uploadfs/uploader/api"
	"uploadfs/uploader/api/openai"
)

func uploadsPartsCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "uploads:parts",
		Short: "add a part to an Upload: create",
		Args:  takes(0, 0, "use uploads:parts create"),
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(uploadsPartsCreate())
	return cmd
}

func uploadsPartsCreate() *cobra.Command {
	var flags rawFlags
	var id, path, text string
	cmd := &cobra.Command{
		Use:   "create --upload-id U --data PATH",
		Short: "send a part of at most 64 MiB",
		Long: `Sends the content of a file as one part of an Upload and prints the JSON that the
API answers. The file is streamed; its size is checked before anything is sent.`,
		Example: `  uploadfs uploads:parts create --upload-id upload_abc --data chunk.000
  head -c 64M train.jsonl | uploadfs uploads:parts create --upload-id upload_abc --data -`,
		Args: takes(0, 0, "everything is given with flags"),
	}
	f := cmd.Flags()
	f.SortFlags = false
	f.StringVar(&id, "upload-id", "", "the `ID` of the Upload")
	f.StringVar(&path, "data", "", "`PATH` (or @PATH) of the file to send, - for standard input")
	f.StringVar(&text, "data-string", "", "the `TEXT` to send, instead of a file")
	send := rawCall(&flags, []string{"upload-id"}, func(cmd *cobra.Command, api openai.Raw) (string, error) {
		body, done, err := partData(cmd, path, text)
		if err != nil {
			return "", err
		}
		defer done()
		return api.AddPart(cmd.Context(), id, body)
	})
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if f.Changed("data") == f.Changed("data-string") {
			return usage(cmd, errors.New("give either --data or --data-string"))
		}
		return send(cmd, args)
	}
	return flags.add(cmd)
}

// partData opens what is to be sent, whose size is then known and allowed. done
// gives it up.
func partData(cmd *cobra.Command, path, text string) (body *io.SectionReader, done func(), err error) {
	if cmd.Flags().Changed("data-string") {
		r := strings.NewReader(text)
		body, err = partOf(r, r.Size(), "--data-string")
		return body, func() {}, err
	}
	path = strings.TrimPrefix(path, "@")
	name := mount.Printable(path)
	var file *os.File
	if path == "-" {
		name = "standard input"
		file, err = spoolPart(cmd.InOrStdin())
	} else {
		file, err = openPart(path)
	}
	if err != nil {
		return nil, nil, err
	}
	fi, err := file.Stat()
	if err == nil {
		body, err = partOf(file, fi.Size(), name)
	}
	if err != nil {
		file.Close()
		return nil, nil, err
	}
	return body, func() { file.Close() }, nil
}

// openPart opens a file to be sent. One whose size only reading tells (a pipe, as
// from <(…)) is spooled.
func openPart(path string) (*os.File, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, absent(err, "--data takes the path of a file; --data-string TEXT sends the text itself")
	}
	fi, err := file.Stat()
	switch {
	case err == nil && fi.Mode().IsRegular():
		return file, nil
	case err == nil && fi.IsDir():
		err = fmt.Errorf("%s is a directory: --data takes the path of a file", mount.Printable(path))
	}
	defer file.Close()
	if err != nil {
		return nil, err
	}
	return spoolPart(file)
}

// spoolPart copies a stream to a temporary file without a name, and not more of
// it than shows that it is too large.
func spoolPart(r io.Reader) (*os.File, error) {
	file, err := os.CreateTemp("", "uploadfs-part-*")
	if err != nil {
		return nil, err
	}
	if err := os.Remove(file.Name()); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	if _, err := io.Copy(file, io.LimitReader(r, api.MaxPart+1)); err != nil {
		return nil, errors.Join(fmt.Errorf("read the part: %w", err), file.Close())
	}
	return file, nil
}

// partOf is a part of n bytes, unless the API takes none of that size.
func partOf(r io.ReaderAt, n int64, name string) (*io.SectionReader, error) {
	switch {
	case n == 0:
		return nil, fmt.Errorf("%s is empty, and the API takes no empty parts: nothing was sent", name)
	case n > api.MaxPart:
		return nil, fmt.Errorf("%s is larger than 64 MiB, the most that a part can hold: nothing was sent; cut it up, or use uploadfs put", name)
	}
	return io.NewSectionReader(r, 0, n), nil
}

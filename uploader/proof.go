package uploader

import (
	"context"
	"hash/crc32"
	"io"

	"uploadfs/uploader/api"
	"uploadfs/uploader/journal"
)

// rangeMatches reports whether the bytes [off, off+n) of file have this CRC-32C.
// They do not where the file ends before.
func rangeMatches(ctx context.Context, file io.ReaderAt, off, n int64, want uint32) (bool, error) {
	crc, whole, err := rangeCRC(ctx, file, off, n)
	return whole && crc == want, err
}

// rangeCRC is the CRC-32C of the bytes [off, off+n) of file. whole is false where
// the file ends before.
func rangeCRC(ctx context.Context, file io.ReaderAt, off, n int64) (crc uint32, whole bool, err error) {
	buf := make([]byte, min(digestBuffer, n))
	for end := off + n; off < end; {
		if ctx.Err() != nil {
			return 0, false, context.Cause(ctx)
		}
		k, err := file.ReadAt(buf[:min(int64(len(buf)), end-off)], off)
		crc = crc32.Update(crc, castagnoli, buf[:k])
		off += int64(k)
		if err == io.EOF && off < end {
			return 0, false, nil
		}
		if err != nil && err != io.EOF {
			return 0, false, api.LocalError("read", err)
		}
	}
	return crc, true, nil
}

// allEqual reports whether file has what each part was sent with.
func partsMatch(ctx context.Context, file io.ReaderAt, parts []journal.Part) (bool, error) {
	for _, p := range parts {
		if same, err := rangeMatches(ctx, file, p.Off, p.Len, p.CRC); err != nil || !same {
			return false, err
		}
	}
	return true, nil
}

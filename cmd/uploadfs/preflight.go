package main

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"

	"uploadfs/mount"
	"uploadfs/uploader"
	"uploadfs/uploader/api"
)

// Limits that the API's reference gives in decimal units. What lies between a
// decimal reading and the binary one may or may not be accepted.
const (
	decimalMaxUpload = 8_000_000_000
	decimalMaxBatch  = 200_000_000
)

// jsonlPurposes are those whose Files the API reads line by line.
var jsonlPurposes = []string{"batch", "fine-tune"}

// preflight checks a file before a byte is sent. The error is a refusal that the API
// would certainly give, perhaps an hour later. The warnings are refusals that it may
// give: its limits change.
func preflight(fi fs.FileInfo, name string, spec api.Spec) (warnings []string, err error) {
	size, shown := fi.Size(), mount.Printable(name)
	switch {
	case fi.IsDir():
		return nil, fmt.Errorf("%s is a directory: name the files in it, or give -r", shown)
	case !fi.Mode().IsRegular():
		return nil, fmt.Errorf("%s is no regular file: write its content to uploadfs put --filename NAME -", shown)
	case size == 0:
		return nil, fmt.Errorf("%s is empty, and the API has no empty Files", shown)
	case size > api.MaxUpload:
		return nil, fmt.Errorf("%s has %s, and an Upload holds at most 8 GiB: split it", shown, exactly(size))
	}
	if size > decimalMaxUpload {
		warnings = append(warnings, fmt.Sprintf("%s has %s, and the API may mean 8,000,000,000 bytes by its limit of 8 GB", shown, exactly(size)))
	}
	for _, p := range jsonlPurposes {
		if spec.Purpose == p && !strings.EqualFold(path.Ext(spec.Filename), ".jsonl") {
			warnings = append(warnings, fmt.Sprintf("%s: purpose %s takes .jsonl files only, and this one will be called %s", shown, p, mount.Printable(spec.Filename)))
		}
	}
	if spec.Purpose == "batch" && size > decimalMaxBatch {
		warnings = append(warnings, fmt.Sprintf("%s has %s, and the input of a batch may have 200 MB: split it", shown, exactly(size)))
	}
	return warnings, nil
}

// preflightSpec checks what is the same for all files.
func preflightSpec(spec api.Spec, expires string) error {
	if err := uploader.ValidatePurpose(spec.Purpose); err != nil {
		return err
	}
	var errs []error
	if spec.MimeType != "" {
		errs = append(errs, uploader.ValidateAttr(uploader.AttrMimeType, spec.MimeType))
	}
	if expires != "" {
		errs = append(errs, uploader.ValidateAttr(uploader.AttrExpires, expires))
	}
	return errors.Join(errs...)
}

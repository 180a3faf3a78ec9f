package uploader

import (
	"uploadfs/uploader/api"
	"uploadfs/uploader/journal"
)

// cut plans parts of n bytes for [off, end), the last one shorter.
func cut(off, end, n int64) []*part {
	var parts []*part
	for ; off < end; off += n {
		parts = append(parts, &part{off: off, n: min(n, end-off)})
	}
	return parts
}

// grain is what the size of a divided part is a multiple of, in bytes.
const grain = 1 << 20

// divide plans what has not been sent anew, so that every idle slot is busy to the
// end: in rounds of equal parts, one for each slot, each as large as can be. Parts
// that are acknowledged or under way stay, and all do where no slot is idle. The
// session's mutex is held.
func (x *transfer) divide(idle int64) {
	if idle <= 0 {
		return
	}
	left := int64(0)
	for _, p := range x.parts {
		if p.free() {
			left += p.n
		}
	}
	if left == 0 {
		return
	}
	rounds := (left + idle*api.MaxPart - 1) / (idle * api.MaxPart)
	size := (left + idle*rounds - 1) / (idle * rounds)
	size = min(max((size+grain-1)/grain*grain, api.MinPart), api.MaxPart)
	var parts []*part
	for i := 0; i < len(x.parts); {
		if !x.parts[i].free() {
			parts = append(parts, x.parts[i])
			i++
			continue
		}
		off, end := x.parts[i].off, x.parts[i].off
		for ; i < len(x.parts) && x.parts[i].free(); i++ {
			end += x.parts[i].n
		}
		parts = append(parts, cut(off, end, size)...)
	}
	x.parts = parts
}

// free reports whether the part may be planned anew.
func (p *part) free() bool { return p.id == "" && !p.sending }

// resumed takes up the parts that the API had acknowledged before a crash,
// whatever their sizes, and plans the gaps between them in whole chunks.
func (x *transfer) resumed(known []journal.Part, chunk int64) {
	x.parts = nil
	end := int64(0)
	for _, k := range known { // in file order
		if k.Off < end || k.Off+k.Len > x.spec.Bytes || k.Len <= 0 {
			x.replaced++ // of an earlier plan
			continue
		}
		x.parts = append(x.parts, cut(end, k.Off, chunk)...)
		x.parts = append(x.parts, &part{off: k.Off, n: k.Len, id: k.ID, crc: k.CRC})
		end = k.Off + k.Len
	}
	x.parts = append(x.parts, cut(end, x.spec.Bytes, chunk)...)
}

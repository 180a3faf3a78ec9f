// Package mount is a mount's life: it prepares the state directory and locks
// it, checks what can be checked before the kernel is asked, puts the parts
// together, mounts, reports that the mount is ready, and at the end drains what
// is still to be uploaded. It also holds the other end of each of these: how
// `status`, `retry` and `unmount` find a running mount and talk to it.
//
// # A state directory
//
//	lock           flock(2)ed while a daemon runs; its pid and mount point
//	endpoint       what the directory is bound to since its first use
//	tree/          the backing tree
//	api/           the embedded API server's data
//	embedded.json  base URL and key of the running embedded server
//	http-token     the token of the page of --http
//	control.sock   HTTP for status, retry and unmount
//	uploadfs.log   the daemon's log when it runs in the background
//
// and the uploader's journal. The directory is 0700, and its path is the mount's
// source in /proc/self/mountinfo: that is how a client finds it without touching
// the mount, which may be dead or waiting for the very daemon that is asked about.
//
// # One way to end
//
// umount(8), fusermount3, `uploadfs unmount`, SIGTERM and SIGINT end a mount in the
// same order. First the kernel gives the mount up, so that no new work can arrive.
// Then the daemon uploads what is pending, up to [Config.DrainTimeout]. Then it ends
// and names what is left. A busy mount stays as usable as it was. A signal detaches
// even a busy mount, and the daemon serves its open files until it ends.
package mount

// Package procfs reads what the kernel tells of processes, of their open files
// and of mounts: the files of proc(5). It is the only reader of them in this
// module. It imports nothing of the module, so every package may use it.
//
// A process that waits for the answer to a request of its own does not change
// under the reader. Any other process may be gone, or be another one, at the next
// call: [Process] tells two lives of one process ID apart.
//
// Nothing here touches the files that a descriptor or a mount leads to. So no
// call waits for a filesystem other than procfs.
//
// All functions may be called concurrently.
package procfs

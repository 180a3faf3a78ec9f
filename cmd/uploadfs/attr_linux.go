package main

import "golang.org/x/sys/unix"

// errNoAttr is what getxattr(2) says of a name that has no value.
const errNoAttr = unix.ENODATA

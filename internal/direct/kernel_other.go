//go:build !linux

package direct

import (
	"errors"
	"syscall"
)

// Supported reports whether there is a network to open.
const Supported = false

var errUnsupported = errors.New("opening the network: direct delivery is for Linux")

// OpenKernel opens the network of the operating system.
func OpenKernel() (Network, error) { return nil, errUnsupported }

// Duplicate returns another descriptor of the socket of c, which stays open when c
// is closed.
func Duplicate(syscall.Conn) (fd int, err error) { return 0, errUnsupported }

// Held returns what the kernel holds that was written to c. It is not known here.
func Held(syscall.Conn) (bytes int, full, known bool) { return 0, false, false }

// CloseDuplicate closes what Duplicate has returned.
func CloseDuplicate(int) {}

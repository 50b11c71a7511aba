package direct

import (
	"syscall"
	"unsafe"
)

// Held returns how many bytes the kernel holds that were written to c and that its peer
// has not taken, and whether it is full: it takes no more for now. It tells of progress
// that a write does not see, for the kernel wakes a writer only when a large part of its
// buffer is free again. Known is false if there is no socket to ask.
func Held(c syscall.Conn) (bytes int, full, known bool) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, false, false
	}
	err = raw.Control(func(fd uintptr) { bytes, full = held(fd), isFull(fd) })
	return bytes, full, err == nil
}

func (k *kernel) Held(fd int32) int { return held(uintptr(fd)) }

// held is the SIOCOUTQ of tcp(7) and unix(7). Of TCP, it counts the bytes that are not
// acknowledged; of a Unix socket, the memory of the buffers that are not read to their end.
func held(fd uintptr) int {
	var n int32
	if _, _, errno := syscall.RawSyscall(syscall.SYS_IOCTL, fd, syscall.TIOCOUTQ, uintptr(unsafe.Pointer(&n))); errno != 0 {
		return 0
	}
	return int(n)
}

// isFull reports whether poll(2) would wait for room.
func isFull(fd uintptr) bool {
	const pollOut = 4
	p := struct {
		fd              int32
		events, revents int16
	}{int32(fd), pollOut, 0}
	var now syscall.Timespec
	_, _, errno := syscall.RawSyscall6(syscall.SYS_PPOLL, uintptr(unsafe.Pointer(&p)), 1, uintptr(unsafe.Pointer(&now)), 0, 0, 0)
	return errno == 0 && p.revents == 0
}

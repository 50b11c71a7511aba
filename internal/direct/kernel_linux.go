package direct

import (
	"errors"
	"fmt"
	"os"
	"syscall"
	"unsafe"
)

// Supported reports whether there is a network to open.
const Supported = true

// Duplicate returns another descriptor of the socket of c, which stays open when c
// is closed.
func Duplicate(c syscall.Conn) (fd int, err error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, fmt.Errorf("duplicating a socket: %w", err)
	}
	var errno syscall.Errno
	err = raw.Control(func(of uintptr) {
		var n uintptr
		n, _, errno = syscall.Syscall(syscall.SYS_FCNTL, of, syscall.F_DUPFD_CLOEXEC, 0)
		fd = int(n)
	})
	if err == nil && errno != 0 {
		err = errno
	}
	if err != nil {
		return 0, fmt.Errorf("duplicating a socket: %w", err)
	}
	return fd, nil
}

// CloseDuplicate closes what Duplicate has returned.
func CloseDuplicate(fd int) { _ = syscall.Close(fd) }

// A kernel is the network of Linux: one epoll instance.
//
// Sockets are watched edge-triggered for room. The kernel reports that only after a
// send has found too little of it, so that watching costs nothing otherwise. They
// are not watched for input: what a client sends after its request stays where it
// is, and holds up its own sender.
type kernel struct {
	epoll   *os.File // of which the runtime's own poller waits
	control syscall.RawConn
	fd      int
	raw     []syscall.EpollEvent
	ring    *ring // nil where the kernel refuses one
}

// ringWorth is how many sends are cheaper together than each by itself.
const ringWorth = 8

// OpenKernel opens the network of the operating system.
func OpenKernel() (Network, error) {
	fd, err := syscall.EpollCreate1(syscall.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("creating an epoll instance: %w", err)
	}
	// os.NewFile gives what does not block to the runtime's poller.
	if err := syscall.SetNonblock(fd, true); err != nil {
		_ = syscall.Close(fd)
		return nil, fmt.Errorf("making an epoll instance pollable: %w", err)
	}
	k := &kernel{epoll: os.NewFile(uintptr(fd), "epoll"), fd: fd}
	if k.control, err = k.epoll.SyscallConn(); err != nil {
		_ = k.epoll.Close()
		return nil, fmt.Errorf("polling an epoll instance: %w", err)
	}
	k.ring, _ = openRing()
	return k, nil
}

func (k *kernel) Add(fd int32, tag uint32) error {
	const edge = 1 << 31 // EPOLLET, which package syscall has as a negative number
	event := syscall.EpollEvent{
		Events: syscall.EPOLLOUT | syscall.EPOLLRDHUP | edge,
		Fd:     fd,
		Pad:    int32(tag),
	}
	if err := syscall.EpollCtl(k.fd, syscall.EPOLL_CTL_ADD, int(fd), &event); err != nil {
		return fmt.Errorf("watching a socket: %w", err)
	}
	return nil
}

func (k *kernel) Wait(events []Event) (int, error) {
	if len(k.raw) < len(events) {
		k.raw = make([]syscall.EpollEvent, len(events))
	}
	var n int
	var waitErr error
	err := k.control.Read(func(fd uintptr) bool {
		for {
			n, waitErr = syscall.EpollWait(int(fd), k.raw[:len(events)], 0)
			if !errors.Is(waitErr, syscall.EINTR) {
				return n != 0
			}
		}
	})
	if err == nil {
		err = waitErr
	}
	if err != nil {
		return 0, fmt.Errorf("waiting for sockets: %w", err)
	}
	for i, e := range k.raw[:n] {
		events[i] = Event{
			FD:   e.Fd,
			Tag:  uint32(e.Pad),
			Gone: e.Events&(syscall.EPOLLRDHUP|syscall.EPOLLHUP|syscall.EPOLLERR) != 0,
			Room: e.Events&syscall.EPOLLOUT != 0,
		}
	}
	return n, nil
}

func (k *kernel) Send(fd int32, p []byte) (int, error) {
	n := send(fd, p)
	if n < 0 {
		return 0, syscall.EPIPE
	}
	return int(n), nil
}

func (k *kernel) SendAll(fds []int32, p []byte, sent []int32) {
	done := 0
	if k.ring != nil && len(fds) >= ringWorth {
		done = k.ring.sendAll(fds, p, sent)
	}
	for i, fd := range fds[done:] {
		sent[done+i] = send(fd, p)
	}
}

// send returns how many bytes the socket takes, or -1 if the connection is broken.
//
// The call never blocks, so the runtime need not be told of it: that is a tenth of
// a microsecond for every delivery.
func send(fd int32, p []byte) int32 {
	for {
		n, _, errno := syscall.RawSyscall6(sysSendto, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(p))),
			uintptr(len(p)), syscall.MSG_DONTWAIT|syscall.MSG_NOSIGNAL, 0, 0)
		if errno != syscall.EINTR {
			return outcome(int(n), errno)
		}
	}
}

// outcome is what SendAll says of a send.
func outcome(n int, errno syscall.Errno) int32 {
	switch errno {
	case 0:
		return int32(n)
	case syscall.EAGAIN, syscall.ENOBUFS, syscall.ENOMEM:
		return 0
	default:
		return -1
	}
}

// unread is how much of what a client has sent is read away when its socket is
// closed: a socket that is closed with input left resets the connection, and what
// was sent last may be lost.
const unread = 64 << 10

func (k *kernel) Shut(fd int32) {
	// With MSG_TRUNC, TCP throws away what is read (tcp(7)).
	var b [4096]byte
	for range unread / len(b) {
		if n, _, err := syscall.Recvfrom(int(fd), b[:], syscall.MSG_DONTWAIT); n <= 0 || err != nil {
			break
		}
	}
	_ = syscall.Close(int(fd))
}

func (k *kernel) Close() error {
	if k.ring != nil {
		k.ring.close()
	}
	return k.epoll.Close()
}

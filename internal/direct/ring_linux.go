package direct

import (
	"errors"
	"fmt"
	"runtime"
	"sync/atomic"
	"syscall"
	"unsafe"
)

// A ring sends to many sockets with one system call (io_uring(7)). Not every kernel
// lets us: containers often forbid it.
type ring struct {
	fd      int
	mapped  [][]byte
	sqHead  *uint32
	sqTail  *uint32
	cqHead  *uint32
	cqTail  *uint32
	entries []submission
	done    []completion
	broken  bool
}

// ringSize is how many sends one call makes. The call holds its thread for as long
// as they take, a millisecond or so.
const ringSize = 256

// What follows is as in linux/io_uring.h, and the same on all of Go's architectures.

const (
	sysRingSetup = 425
	sysRingEnter = 426

	ringClamp     = 1 << 4 // IORING_SETUP_CLAMP
	ringSubmitAll = 1 << 7 // IORING_SETUP_SUBMIT_ALL: one that fails does not stop the others
	ringSingleMap = 1 << 0 // IORING_FEAT_SINGLE_MMAP
	ringEvents    = 1 << 0 // IORING_ENTER_GETEVENTS

	ringOffsetSQ      = 0
	ringOffsetEntries = 0x10000000

	opSend = 26 // IORING_OP_SEND
)

type ringParams struct {
	sqEntries, cqEntries, flags, sqThreadCPU, sqThreadIdle, features, wqFD uint32
	_                                                                      [3]uint32
	sq                                                                     struct {
		head, tail, mask, entries, flags, dropped, array, _ uint32
		_                                                   uint64
	}
	cq struct {
		head, tail, mask, entries, overflow, cqes, flags, _ uint32
		_                                                   uint64
	}
}

type submission struct {
	op, flags byte
	_         uint16
	fd        int32
	_         uint64
	addr      uint64
	size      uint32
	sendFlags uint32
	index     uint64
	_         [3]uint64
}

type completion struct {
	index  uint64
	result int32
	_      uint32
}

func openRing() (*ring, error) {
	params := ringParams{flags: ringClamp | ringSubmitAll}
	fd, _, errno := syscall.Syscall(sysRingSetup, ringSize, uintptr(unsafe.Pointer(&params)), 0)
	if errno != 0 {
		return nil, fmt.Errorf("setting up a ring: %w", errno)
	}
	r := &ring{fd: int(fd)}
	syscall.CloseOnExec(r.fd)
	if params.features&ringSingleMap == 0 || params.sqEntries == 0 {
		r.close()
		return nil, errors.New("setting up a ring: the kernel is too old")
	}
	size := max(params.sq.array+params.sqEntries*4, params.cq.cqes+params.cqEntries*uint32(unsafe.Sizeof(completion{})))
	rings, err := r.mmap(ringOffsetSQ, int(size))
	if err != nil {
		r.close()
		return nil, err
	}
	entries, err := r.mmap(ringOffsetEntries, int(params.sqEntries)*int(unsafe.Sizeof(submission{})))
	if err != nil {
		r.close()
		return nil, err
	}
	at := func(offset uint32) unsafe.Pointer { return unsafe.Pointer(&rings[offset]) }
	r.sqHead, r.sqTail = (*uint32)(at(params.sq.head)), (*uint32)(at(params.sq.tail))
	r.cqHead, r.cqTail = (*uint32)(at(params.cq.head)), (*uint32)(at(params.cq.tail))
	r.done = unsafe.Slice((*completion)(at(params.cq.cqes)), params.cqEntries)
	r.entries = unsafe.Slice((*submission)(unsafe.Pointer(&entries[0])), params.sqEntries)
	order := unsafe.Slice((*uint32)(at(params.sq.array)), params.sqEntries)
	for i := range order {
		order[i] = uint32(i)
	}
	return r, nil
}

func (r *ring) mmap(offset int64, size int) ([]byte, error) {
	b, err := syscall.Mmap(r.fd, offset, size, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_SHARED|syscall.MAP_POPULATE)
	if err != nil {
		return nil, fmt.Errorf("mapping a ring: %w", err)
	}
	r.mapped = append(r.mapped, b)
	return b, nil
}

func (r *ring) close() {
	for _, b := range r.mapped {
		_ = syscall.Munmap(b)
	}
	_ = syscall.Close(r.fd)
}

// sendAll is Network.SendAll, for as many as it has been able to.
func (r *ring) sendAll(fds []int32, p []byte, sent []int32) (did int) {
	for did < len(fds) && !r.broken {
		n := min(len(fds)-did, len(r.entries))
		did += r.send(fds[did:did+n], p, sent[did:did+n])
	}
	return did
}

// send makes one call for sockets that there is room for, and returns how many it
// has served: all, unless the ring is broken.
func (r *ring) send(fds []int32, p []byte, sent []int32) int {
	mask := uint32(len(r.entries) - 1)
	tail := *r.sqTail
	addr := uint64(uintptr(unsafe.Pointer(unsafe.SliceData(p))))
	for i, fd := range fds {
		r.entries[(tail+uint32(i))&mask] = submission{
			op:        opSend,
			fd:        fd,
			addr:      addr,
			size:      uint32(len(p)),
			sendFlags: syscall.MSG_DONTWAIT | syscall.MSG_NOSIGNAL,
			index:     uint64(i),
		}
	}
	atomic.StoreUint32(r.sqTail, tail+uint32(len(fds)))
	defer runtime.KeepAlive(p)

	submitted, completed := 0, 0
	for completed < len(fds) {
		n, _, errno := syscall.Syscall6(sysRingEnter, uintptr(r.fd), uintptr(len(fds)-submitted), uintptr(len(fds)-completed), ringEvents, 0, 0)
		switch errno {
		case 0:
			submitted += int(n)
		case syscall.EINTR, syscall.EAGAIN, syscall.EBUSY:
		default:
			// Never seen. What was not taken is not to be taken later.
			r.broken = true
			atomic.StoreUint32(r.sqTail, atomic.LoadUint32(r.sqHead))
			r.reap(sent) // what was taken is done, for it does not wait
			return submitted
		}
		completed += r.reap(sent)
	}
	return len(fds)
}

// reap takes what is completed.
func (r *ring) reap(sent []int32) (n int) {
	mask := uint32(len(r.done) - 1)
	head := *r.cqHead
	for tail := atomic.LoadUint32(r.cqTail); head != tail; head++ {
		c := &r.done[head&mask]
		sent[c.index] = outcome(int(c.result), syscall.Errno(max(0, -c.result)))
		n++
	}
	atomic.StoreUint32(r.cqHead, head)
	return n
}

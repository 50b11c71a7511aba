package main

import (
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	epollEdge           = 1 << 31 // EPOLLET, which package syscall has as a negative number
	ipBindAddressNoPort = 24
)

// epollCrowd holds plaintext HTTP/1.1 clients on a few epoll loops: one
// descriptor and one small struct a client, no goroutine.
type epollCrowd struct {
	workers []*epollWorker
	all     []*lane
}

type epollWorker struct {
	lane
	plan    *plan
	target  syscall.SockaddrInet4
	request []byte // up to, not including, the blank line; without the request line if there are topics
	epfd    int
	conns   []epollConn
	base    int      // index of conns[0] among all clients
	ids     [][]byte // newest id of each client, kept only for churn
	reading int      // client whose bytes are being parsed

	opened, churnAt int
	unanswered      int // connections opened that have neither a response head nor failed
	rampStart       time.Time
	churnOwed       float64
	churnLast       time.Time
	resumed         bool // slow clients read again
	stopping        atomic.Bool
	done            chan struct{}
	buf             []byte
	undecoded       []undecoded
}

type epollConn struct {
	stream
	fd      int32
	phase   connPhase
	slow    bool
	cut     bool // the server ended it
	counted bool // as connected
	waits   bool // as unanswered
}

type connPhase uint8

const (
	idle connPhase = iota
	connecting
	asking // request sent, head not yet seen
	reading
	stalled
	closed
)

func startEpollCrowd(p *plan) (crowd, error) {
	addr, err := netip.ParseAddrPort(strings.Replace(p.url.Host, "localhost", "127.0.0.1", 1))
	if err != nil || !addr.Addr().Is4() {
		return nil, fmt.Errorf("plaintext HTTP/1.1 needs an IPv4 address and port, not %q", p.url.Host)
	}
	var head strings.Builder
	if p.topics == 0 {
		head.WriteString(requestLine(p.url))
	}
	head.WriteString(p.fieldLines())
	c := &epollCrowd{}
	for i := range p.threads {
		first, last := p.n*i/p.threads, p.n*(i+1)/p.threads
		w := &epollWorker{
			plan: p, request: []byte(head.String()), base: first, conns: make([]epollConn, last-first),
			target: syscall.SockaddrInet4{Port: int(addr.Port()), Addr: addr.Addr().As4()},
			done:   make(chan struct{}), buf: make([]byte, 256<<10),
			rampStart: time.Now(), churnLast: time.Now(),
		}
		if w.epfd, err = syscall.EpollCreate1(syscall.EPOLL_CLOEXEC); err != nil {
			return nil, err
		}
		if p.churn == 0 {
			w.healthy.known = new(recent)
		} else { // ids are to be read
			w.ids = make([][]byte, len(w.conns))
			w.healthy.onID = func(_ *stream, id []byte) { w.ids[w.reading] = append(w.ids[w.reading][:0], id...) }
		}
		c.workers = append(c.workers, w)
		c.all = append(c.all, &w.lane)
		go w.run()
	}
	return c, nil
}

func (c *epollCrowd) lanes() []*lane { return c.all }

func (c *epollCrowd) newestN() (ns []uint64) {
	for _, w := range c.workers {
		w.mu.Lock()
		for i := range w.conns {
			if k := &w.conns[i]; k.counted && !k.slow && k.phase != closed {
				ns = append(ns, k.lastN)
			}
		}
		w.mu.Unlock()
	}
	return ns
}

func (c *epollCrowd) stop() {
	for _, w := range c.workers {
		w.stopping.Store(true)
	}
	for _, w := range c.workers {
		<-w.done
	}
}

func (c *epollCrowd) resumeStalled(d time.Duration) (s stalledReport) {
	published := highest(c.newestN())
	for _, w := range c.workers {
		w.mu.Lock()
		w.resumed = true
		for i := range w.conns {
			if k := &w.conns[i]; k.phase == stalled {
				k.phase = reading
				w.watch(k, i, syscall.EPOLL_CTL_MOD, syscall.EPOLLIN|syscall.EPOLLRDHUP|epollEdge)
			}
		}
		w.mu.Unlock()
	}
	time.Sleep(d)
	for _, w := range c.workers {
		w.mu.Lock()
		s.Received += w.stalled.events
		s.Missing += w.stalled.missing
		for i := range w.conns {
			k := &w.conns[i]
			switch {
			case !k.slow || !k.counted:
				continue
			case k.cut:
				s.CutOff++
			case k.lastN < published:
				s.Behind++
			case k.resumed: // set by a gap, see receive
				s.Gapped++
			default:
				s.Continued++
			}
			s.Clients++
		}
		w.mu.Unlock()
	}
	return s
}

func (w *epollWorker) run() {
	runtime.LockOSThread()
	defer close(w.done)
	events := make([]syscall.EpollEvent, 1024)
	for !w.stopping.Load() {
		wait := 20
		if w.opened < len(w.conns) {
			wait = 1
		}
		if len(w.undecoded) > 0 {
			wait = 0 // reading comes first
		}
		n, err := syscall.EpollWait(w.epfd, events, wait)
		if err != nil && err != syscall.EINTR {
			panic(err)
		}
		w.mu.Lock()
		for _, e := range events[:max(n, 0)] {
			w.handle(int(e.Fd), e.Events)
		}
		if n <= 0 || len(w.undecoded) > 4*len(w.conns) {
			w.decode(decodePortion)
		}
		w.openDue()
		w.churnDue()
		w.mu.Unlock()
		if w.plan.batch > 0 {
			time.Sleep(w.plan.batch)
		}
	}
	for i := range w.conns {
		if w.conns[i].fd > 0 {
			w.close(&w.conns[i])
		}
	}
	syscall.Close(w.epfd)
}

// openDue opens the connections that the ramp has reached.
func (w *epollWorker) openDue() {
	if w.opened == len(w.conns) {
		return
	}
	due := int(time.Since(w.rampStart).Seconds() * w.plan.ramp / float64(w.plan.threads))
	for limit := 200; w.opened < min(due, len(w.conns)) && limit > 0; limit-- {
		if w.plan.opening > 0 && w.unanswered >= max(1, w.plan.opening/w.plan.threads) {
			return
		}
		k := &w.conns[w.opened]
		k.slow = w.plan.slow(w.base + w.opened)
		w.open(k, w.opened)
		w.opened++
	}
}

// churnDue reconnects healthy clients in turn.
func (w *epollWorker) churnDue() {
	if w.plan.churn == 0 || w.opened < len(w.conns) {
		w.churnLast = time.Now()
		return
	}
	now := time.Now()
	w.churnOwed += w.plan.churn * float64(len(w.conns)) * now.Sub(w.churnLast).Seconds()
	w.churnLast = now
	if w.churnOwed >= 1 {
		w.decode(len(w.undecoded))
	}
	for tries := len(w.conns); w.churnOwed >= 1 && tries > 0; tries-- {
		i := w.churnAt
		w.churnAt = (w.churnAt + 1) % len(w.conns)
		if k := &w.conns[i]; k.phase == reading && !k.slow && !k.stream.resumed && k.lastN > 0 {
			w.churnOwed--
			w.close(k)
			w.healthy.restart(&k.stream)
			k.stream.resumed = true
			w.reconnects++
			w.open(k, i)
		}
	}
}

func (w *epollWorker) open(k *epollConn, i int) {
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_NONBLOCK|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		k.phase = closed
		w.fail(err)
		return
	}
	k.fd, k.phase = int32(fd), connecting
	k.waits = true
	w.unanswered++
	syscall.SetsockoptInt(fd, syscall.IPPROTO_IP, ipBindAddressNoPort, 1)
	receiveBuf := w.plan.receiveBuf
	if k.slow && w.plan.slowBuf > 0 {
		receiveBuf = w.plan.slowBuf
	}
	if receiveBuf > 0 {
		syscall.SetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_RCVBUF, receiveBuf)
	}
	source := (w.base + i) % w.plan.sources
	err = syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, byte(source / 250), byte(source%250 + 2)}})
	if err == nil {
		err = syscall.Connect(fd, &w.target)
	}
	if err != nil && err != syscall.EINPROGRESS {
		w.lose(k, err)
		return
	}
	w.watch(k, i, syscall.EPOLL_CTL_ADD, syscall.EPOLLIN|syscall.EPOLLOUT|syscall.EPOLLRDHUP|epollEdge)
}

func (w *epollWorker) watch(k *epollConn, i, op int, mask uint32) {
	if err := syscall.EpollCtl(w.epfd, op, int(k.fd), &syscall.EpollEvent{Events: mask, Fd: int32(i)}); err != nil {
		panic(err)
	}
}

func (w *epollWorker) handle(i int, mask uint32) {
	k := &w.conns[i]
	if k.phase == connecting && mask&(syscall.EPOLLOUT|syscall.EPOLLERR|syscall.EPOLLHUP) != 0 {
		w.ask(k, i)
	}
	const ending = syscall.EPOLLRDHUP | syscall.EPOLLHUP | syscall.EPOLLERR
	if k.phase == asking || k.phase == reading {
		w.receive(k, i, mask&ending != 0)
	} else if k.phase == stalled && mask&(syscall.EPOLLERR|syscall.EPOLLHUP) != 0 {
		w.lose(k, errors.New("cut off while stalled"))
	}
}

// ask sends the request on a connection just opened.
func (w *epollWorker) ask(k *epollConn, i int) {
	if e, _ := syscall.GetsockoptInt(int(k.fd), syscall.SOL_SOCKET, syscall.SO_ERROR); e != 0 {
		w.lose(k, syscall.Errno(e))
		return
	}
	request := w.request
	if w.plan.topics > 0 {
		request = append([]byte(requestLine(w.plan.target(w.base+i))), request...)
	}
	if k.stream.resumed && len(w.ids[i]) > 0 {
		request = fmt.Appendf(slices.Clip(request), "Last-Event-ID: %s\r\n", w.ids[i])
	}
	request = append(slices.Clip(request), "\r\n"...)
	if n, err := syscall.Write(int(k.fd), request); err != nil || n < len(request) {
		w.lose(k, fmt.Errorf("send request: %d of %d bytes: %w", n, len(request), err))
		return
	}
	k.phase = asking
}

// answered notes that a connection no longer waits for its response head.
func (w *epollWorker) answered(k *epollConn) {
	if k.waits {
		k.waits = false
		w.unanswered--
	}
}

// lose gives up a connection that the server (or the kernel) ended.
func (w *epollWorker) lose(k *epollConn, err error) {
	if w.decode(len(w.undecoded)); k.phase == closed {
		return // by what was not decoded
	}
	k.cut = true
	w.close(k)
	if k.counted {
		if !k.slow {
			w.disconnects++
		}
		if w.firstError == "" {
			w.firstError = err.Error()
		}
		return
	}
	w.fail(err)
}

// close resets the connection, so that no port is left in TIME_WAIT.
func (w *epollWorker) close(k *epollConn) {
	w.answered(k)
	syscall.SetsockoptLinger(int(k.fd), syscall.SOL_SOCKET, syscall.SO_LINGER, &syscall.Linger{Onoff: 1})
	syscall.Close(int(k.fd))
	k.fd, k.phase = 0, closed
}

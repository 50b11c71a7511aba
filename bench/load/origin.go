package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net/netip"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// What is kept for Last-Event-ID.
const (
	originRing  = 100_000 // events
	originBytes = 1 << 29
)

// origin is a single-threaded SSE server. Encoded events lie behind one another
// in a ring of bytes, framed as chunks, and each connection is a position in
// that stream: one that is behind gets all it lacks in one write.
type origin struct {
	objects bool
	size    int
	ids     bool
	grip    string
	epfd    int
	ring    []byte
	head    int64   // stream offset of the end of the newest event
	ends    []int64 // ends[n%len] is the stream offset behind event n
	n       uint64
	conns   map[int32]*originConn
	live    []*originConn
	stats   originStats
}

type originConn struct {
	fd      int32
	index   int // in live, -1 before the request is complete
	at      int64
	blocked bool
	request []byte
	pending []byte // what is left of the response head
}

type originStats struct {
	Connections int    `json:"connections"`
	Max         int    `json:"max_connections"`
	Accepted    int    `json:"accepted"`
	Resumed     int    `json:"resumed"`
	Dropped     int    `json:"dropped_too_slow"`
	Published   uint64 `json:"published"`
	LateMax     string `json:"late_max"`
}

func runOrigin(args []string) error {
	fs := flag.NewFlagSet("origin", flag.ExitOnError)
	listen := fs.String("listen", "127.0.0.1:9000", "IPv4 address and port")
	rate := rateFlag(10)
	fs.Var(&rate, "rate", "events a second")
	size := fs.Int("size", 200, "bytes an event")
	ids := fs.Bool("ids", true, "give events an id line")
	objects := fs.Bool("objects", false, "fill events with JSON objects, and not with the same letter")
	prefill := fs.Int("prefill", 0, "events made at the start, for those who ask for them by Last-Event-ID")
	burst := fs.Int("burst", 1, "events made at once, burst/rate seconds apart")
	grip := fs.String("grip", "", "instead of streaming, answer with a GRIP stream hold on this channel")
	fs.Parse(args)
	addr, err := netip.ParseAddrPort(*listen)
	if err != nil {
		return err
	}
	raiseFileLimit(300_000) // or as many as there may be
	o := &origin{objects: *objects, size: *size, ids: *ids, grip: *grip, conns: map[int32]*originConn{}, ends: make([]int64, originRing+1)}
	o.ring = make([]byte, min(originRing*(max(*size, 90)+16), originBytes))
	runtime.LockOSThread()
	for range *prefill {
		o.publish(time.Now().UnixNano())
	}
	return o.serve(addr, float64(rate), *burst)
}

func (o *origin) serve(addr netip.AddrPort, rate float64, burst int) error {
	listener, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_NONBLOCK|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	syscall.SetsockoptInt(listener, syscall.SOL_SOCKET, syscall.SO_REUSEADDR, 1)
	if err := syscall.Bind(listener, &syscall.SockaddrInet4{Port: int(addr.Port()), Addr: addr.Addr().As4()}); err != nil {
		return fmt.Errorf("listen on %s: %w", addr, err)
	}
	if err := syscall.Listen(listener, 4096); err != nil {
		return err
	}
	if o.epfd, err = syscall.EpollCreate1(syscall.EPOLL_CLOEXEC); err != nil {
		return err
	}
	syscall.EpollCtl(o.epfd, syscall.EPOLL_CTL_ADD, listener, &syscall.EpollEvent{Events: syscall.EPOLLIN, Fd: int32(listener)})

	period := time.Duration(float64(burst) / rate * float64(time.Second))
	due := time.Now().Add(period)
	var late time.Duration
	events := make([]syscall.EpollEvent, 512)
	for {
		wait := time.Until(due)
		n, err := syscall.EpollWait(o.epfd, events, int(max(0, wait).Milliseconds()))
		if err != nil && err != syscall.EINTR {
			return err
		}
		for _, e := range events[:max(n, 0)] {
			if e.Fd == int32(listener) {
				o.accept(listener)
			} else {
				o.handle(e.Fd, e.Events)
			}
		}
		if wait = time.Until(due); wait > 0 && wait < time.Millisecond && n <= 0 {
			time.Sleep(wait)
		}
		made := false
		for now := time.Now(); !due.After(now); due = due.Add(period) {
			late = max(late, now.Sub(due))
			for range burst {
				o.publish(now.UnixNano())
			}
			made = true
		}
		if made {
			o.stats.LateMax = late.String()
			// From the end, as a connection that is closed is replaced by the
			// last one.
			for i := len(o.live) - 1; i >= 0; i-- { //nolint:modernize // the slice changes on the way
				if c := o.live[i]; !c.blocked {
					o.send(c)
				}
			}
		}
	}
}

// publish appends one event to the ring, never across its end.
func (o *origin) publish(t int64) {
	o.n++
	event := o.event(t)
	chunk := append(strconv.AppendInt(nil, int64(len(event)), 16), "\r\n"...)
	chunk = append(append(chunk, event...), "\r\n"...)
	for _, b := range [2][]byte{chunk[:min(len(chunk), o.toEdge(o.head))], chunk[min(len(chunk), o.toEdge(o.head)):]} {
		o.head += int64(copy(o.ring[int(o.head%int64(len(o.ring))):], b))
	}
	o.ends[o.n%uint64(len(o.ends))] = o.head
	o.stats.Published = o.n
}

// event returns event n.
func (o *origin) event(t int64) []byte {
	if o.objects {
		return appendObjects(nil, o.n, t, o.size)
	}
	return appendEvent(nil, o.n, t, o.size, o.ids)
}

// toEdge is the number of ring bytes from stream offset at to the ring's end.
func (o *origin) toEdge(at int64) int { return len(o.ring) - int(at%int64(len(o.ring))) }

func (o *origin) accept(listener int) {
	for {
		fd, _, err := syscall.Accept4(listener, syscall.SOCK_NONBLOCK|syscall.SOCK_CLOEXEC)
		if err != nil {
			return
		}
		syscall.SetsockoptInt(fd, syscall.IPPROTO_TCP, syscall.TCP_NODELAY, 1)
		o.conns[int32(fd)] = &originConn{fd: int32(fd), index: -1}
		o.stats.Accepted++
		syscall.EpollCtl(o.epfd, syscall.EPOLL_CTL_ADD, fd, &syscall.EpollEvent{
			Events: syscall.EPOLLIN | syscall.EPOLLOUT | syscall.EPOLLRDHUP | epollEdge, Fd: int32(fd)})
	}
}

func (o *origin) handle(fd int32, mask uint32) {
	c := o.conns[fd]
	if c == nil {
		return
	}
	if mask&(syscall.EPOLLIN|syscall.EPOLLHUP|syscall.EPOLLERR|syscall.EPOLLRDHUP) != 0 {
		var buf [4096]byte
		for {
			n, err := readNow(int(fd), buf[:])
			if errors.Is(err, syscall.EAGAIN) {
				break
			}
			if err != nil || n == 0 {
				o.close(c)
				return
			}
			if c.index < 0 {
				c.request = append(c.request, buf[:n]...)
			}
		}
		if c.index < 0 && bytes.HasSuffix(c.request, headEnd) {
			o.answer(c)
		}
	}
	if mask&syscall.EPOLLOUT != 0 && c.index >= 0 && c.blocked {
		c.blocked = false
		o.send(c)
	}
}

func (o *origin) answer(c *originConn) {
	lines := strings.Split(string(c.request), "\r\n")
	c.request = nil
	target := strings.Fields(lines[0])
	if len(target) != 3 || target[2] != "HTTP/1.1" {
		o.reply(c, "505 HTTP Version Not Supported", "Content-Length: 0\r\n", "")
		return
	}
	if target[0] != "GET" {
		o.reply(c, "405 Method Not Allowed", "Content-Length: 0\r\n", "")
		return
	}
	if strings.HasPrefix(target[1], "/_stats") {
		o.stats.Connections = len(o.live)
		body, _ := json.Marshal(o.stats)
		o.reply(c, "200 OK", fmt.Sprintf("Content-Type: application/json\r\nContent-Length: %d\r\n", len(body)), string(body))
		return
	}
	if o.grip != "" {
		o.reply(c, "200 OK", "Content-Type: text/event-stream\r\nGrip-Hold: stream\r\nGrip-Channel: "+o.grip+"\r\nContent-Length: 0\r\n", "")
		return
	}
	c.at = o.head
	for _, line := range lines[1:] {
		key, value, _ := strings.Cut(line, ":")
		if strings.EqualFold(key, "Last-Event-ID") {
			after, err := strconv.ParseUint(strings.TrimSpace(value), 10, 64)
			if err != nil || after >= o.n || o.n-after > originRing {
				continue
			}
			if at := o.ends[after%uint64(len(o.ends))]; o.head-at <= int64(len(o.ring)) {
				c.at = at
				o.stats.Resumed++
			}
		}
	}
	c.pending = []byte("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-cache\r\nTransfer-Encoding: chunked\r\n\r\n")
	c.index = len(o.live)
	o.live = append(o.live, c)
	o.stats.Max = max(o.stats.Max, len(o.live))
	o.send(c)
}

// reply sends a short answer and closes the connection, as it says it will.
func (o *origin) reply(c *originConn, status, header, body string) {
	writeNow(int(c.fd), fmt.Appendf(nil, "HTTP/1.1 %s\r\nConnection: close\r\n%s\r\n%s", status, header, body))
	o.close(c)
}

func (o *origin) send(c *originConn) {
	for len(c.pending) > 0 {
		n, err := writeNow(int(c.fd), c.pending)
		if !o.wrote(c, err) {
			return
		}
		c.pending = c.pending[n:]
	}
	for c.at < o.head {
		if o.head-c.at > int64(len(o.ring)) {
			o.stats.Dropped++
			o.close(c)
			return
		}
		from := int(c.at % int64(len(o.ring)))
		n, err := writeNow(int(c.fd), o.ring[from:from+int(min(o.head-c.at, int64(o.toEdge(c.at))))])
		if !o.wrote(c, err) {
			return
		}
		c.at += int64(n)
	}
}

func (o *origin) wrote(c *originConn, err error) bool {
	switch {
	case err == nil:
		return true
	case errors.Is(err, syscall.EAGAIN):
		c.blocked = true
	default:
		o.close(c)
	}
	return false
}

func (o *origin) close(c *originConn) {
	syscall.Close(int(c.fd))
	delete(o.conns, c.fd)
	if c.index >= 0 {
		last := o.live[len(o.live)-1]
		o.live[c.index], last.index = last, c.index
		o.live = o.live[:len(o.live)-1]
		c.index = -1
	}
}

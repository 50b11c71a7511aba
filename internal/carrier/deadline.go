package carrier

import (
	"net/http"
	"sync"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/sse-fanout/caddy-sse-fanout/internal/direct"
)

// A deadline is that of a session's writes. It is shortened when Caddy exits,
// also under a write that is waiting.
//
// What it costs matters, for it is set for every delivery. On HTTP/2, a deadline that
// passes resets the stream, even a quiet one, and each change is a message to the
// goroutine that serves the connection. So a timer checks if a write is waiting,
// and only if the client takes nothing, a deadline is set, in the past.
type deadline struct {
	control *http.ResponseController
	held    func() (bytes int, full, known bool) // by the kernel, of what was written
	known   bool                                 // held says something
	alone   bool                                 // nothing else is written to the connection

	mu sync.Mutex

	// Guarded by mu.
	exitBy  time.Time // set once Caddy exits, or the write is cut
	over    bool      // the handler has returned, or is about to
	watch   *time.Timer
	watched bool      // the timer is running
	writing bool      // a write is under way
	since   time.Time // when it began, or the client was last seen to take something
	uptake  direct.Uptake
	timeout time.Duration
	expired bool // a write has waited too long
}

// newDeadline returns what bounds the writes to w. Caddy's own idle timeouts, which
// are set anew for every write and every flush, are suspended until resume is called,
// unless they bound more than this does.
func (c *Service) newDeadline(w http.ResponseWriter, r *http.Request) (d *deadline, resume func()) {
	d = &deadline{
		control: http.NewResponseController(w),
		held:    func() (bytes int, full, known bool) { return c.Sockets.Held(r) },
		alone:   r.ProtoMajor == 1,
	}
	_, _, d.known = d.held()
	_, idle := caddyhttp.IdleTimeoutsFromContext(r.Context())
	if idle == nil || c.boundInTime(r) {
		return d, func() {}
	}
	d.control = http.NewResponseController(idle.ResponseWriterWrapper)
	suspended := idle.Ctrl
	idle.Ctrl = http.NewResponseController(suspension{})
	return d, func() { idle.Ctrl = suspended }
}

// A suspension takes deadlines and does nothing about them.
type suspension struct{ http.ResponseWriter }

func (suspension) SetWriteDeadline(time.Time) error { return nil }

// set is called before a write.
func (d *deadline) set(timeout time.Duration, exiting bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if exiting && d.exitBy.IsZero() {
		d.exitBy = time.Now().Add(ExitGrace)
	}
	switch now := time.Now(); {
	case !d.exitBy.IsZero():
		_ = d.control.SetWriteDeadline(d.exitBy)
	default:
		d.writing, d.since, d.timeout = true, now, timeout
		d.uptake.Begin()
		d.watchFor(timeout)
	}
}

// piece bounds what one write may take: what goes through is progress. A frame of
// HTTP/2 has 16 KiB, unless the client wants larger ones, so that smaller writes would
// cost more. On HTTP/1.1, the kernel tells more of progress than a piece could.
func (d *deadline) piece() int {
	if d.alone && d.known {
		return maxWrite
	}
	return maxPiece
}

// last is called after the last write of the handler. What the HTTP server writes
// after that is nothing that clear is called for.
func (d *deadline) last(timeout time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	by := d.exitBy
	if by.IsZero() {
		by = time.Now().Add(timeout)
	}
	_ = d.control.SetWriteDeadline(by)
}

// watchFor looks at the write after some time, or earlier, unless somebody does anyway.
// d.mu must be held.
func (d *deadline) watchFor(t time.Duration) {
	if d.known {
		t = min(t, direct.LookEvery(d.timeout))
	}
	switch {
	case d.watched:
		return
	case d.watch == nil:
		d.watch = time.AfterFunc(t, d.look)
	default:
		d.watch.Reset(t)
	}
	d.watched = true
}

// look ends a write that has waited too long.
func (d *deadline) look() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.watched = false
	if d.over || !d.writing {
		return
	}
	now := time.Now()
	if d.known && d.taking() {
		d.since = now
	}
	if left := d.timeout - now.Sub(d.since); left > 0 {
		d.watchFor(left)
		return
	}
	d.expired = true
	_ = d.control.SetWriteDeadline(now)
}

// taking reports whether the client has taken something since the last look. If the kernel
// is not full, it is not what a stream of several waits for, but the client's flow control.
// d.mu must be held.
func (d *deadline) taking() bool {
	bytes, full, _ := d.held()
	return d.uptake.Look(bytes) && (d.alone || full)
}

// clear is called after a write.
func (d *deadline) clear() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.writing = false
}

// hurry is called by whoever sees that Caddy exits.
func (d *deadline) hurry() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.over || !d.exitBy.IsZero() {
		return
	}
	d.exitBy = time.Now().Add(ExitGrace)
	_ = d.control.SetWriteDeadline(d.exitBy)
}

// cut ends the write that is under way, and those that follow.
func (d *deadline) cut() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.over {
		return
	}
	d.exitBy, d.expired = time.Now(), true
	_ = d.control.SetWriteDeadline(d.exitBy)
}

// passed reports whether a write has ended because it waited too long.
func (d *deadline) passed() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.expired
}

// end is called when the handler is about to return: the response writer is not
// to be used any more.
func (d *deadline) end() (exiting bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.over = true
	if d.watch != nil {
		d.watch.Stop()
	}
	return !d.exitBy.IsZero()
}

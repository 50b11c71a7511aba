package carrier

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"reflect"
	"strings"
	"syscall"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/sse-fanout/caddy-sse-fanout/internal/direct"
	"github.com/sse-fanout/caddy-sse-fanout/internal/relay"
)

// A client that has all that there is needs nothing but its socket until the next
// event. Where that is possible, its connection is taken from the HTTP server then,
// and its handler returns: docs/direct.md.

// Sockets are those beneath the connections of clients.
type Sockets interface {
	// Beneath reports whether there is a socket beneath the answer to r, with
	// nothing in between that changes what is written. The answer has this content
	// coding from us: "" for none.
	Beneath(w http.ResponseWriter, r *http.Request, coding string) bool

	// Duplicate returns another descriptor of the socket.
	Duplicate(r *http.Request) (fd int, err error)

	// Held returns how many bytes the kernel holds that were written to the connection
	// of r and that its client has not taken, and whether it takes no more for now. It
	// does not block. Known is false, always, if that is not to be had.
	Held(r *http.Request) (bytes int, full, known bool)

	// Detach takes the connection from the HTTP server, and closes it but for the
	// duplicate.
	Detach(w http.ResponseWriter) error

	// Network opens what direct delivery needs of the sockets.
	Network() (direct.Network, error)
}

// Detachable reports whether the connection of r can be handed over. If so, it tells the
// client that it serves no other request. A body that may still come over it is for net/http
// to deal with.
func (c *Service) Detachable(w http.ResponseWriter, r *http.Request) bool {
	if !c.HandsOver || r.ProtoMajor != 1 || r.ProtoMinor < 1 ||
		mayBeUnread(r) || c.boundInTime(r) || !c.Sockets.Beneath(w, r, "") {
		return false
	}
	w.Header().Set("Connection", "close")
	return true
}

// Adopt takes the connection of r from the HTTP server and hands it over to direct delivery,
// with a source of its own. The header of the answer has been written.
func (c *Service) Adopt(w http.ResponseWriter, r *http.Request, source direct.Source) (solo *direct.Solo, err error) {
	err = c.detach(w, r, "", func(fd int) (err error) {
		solo, err = c.Direct.Adopt(fd, source)
		return err
	})
	if errors.Is(err, errTwoWriters) {
		solo.End(direct.ClientGone)
		panic(http.ErrAbortHandler)
	}
	return solo, err
}

var (
	errChanged    = errors.New("handing over a connection: another handler changes what is written to it")
	errTwoWriters = errors.New("handing over a connection: the HTTP server does not let go of it")
)

// detach takes the connection of r from the HTTP server. take gets another descriptor of its
// socket. If the error is errTwoWriters, take has it already.
func (c *Service) detach(w http.ResponseWriter, r *http.Request, coding string, take func(fd int) error) error {
	if !c.Sockets.Beneath(w, r, coding) {
		// Some writers decide whether they encode or buffer when the header is written.
		return errChanged
	}
	fd, err := c.Sockets.Duplicate(r)
	if err != nil {
		return err
	}
	if err := take(fd); err != nil {
		direct.CloseDuplicate(fd)
		return err
	}
	if err := c.Sockets.Detach(w); err != nil {
		return errTwoWriters
	}
	return nil
}

// handOver hands the connection over to direct delivery, if the client has all that there
// is and is not about to end. It reports whether it has.
func (s *Session) handOver() bool {
	if !s.reader.CanHandOver() {
		return false
	}
	coding := ""
	if s.gzip != nil {
		if s.gzip.Rendition() == nil {
			return false // nobody shares what it gets
		}
		s.enter() // or else it waits there for a restart point
		coding = Gzip
	}
	var carried socket
	err := s.service.detach(s.w, s.r, coding, func(fd int) error {
		return s.reader.HandOver(func(h *relay.Handover) (_ relay.Carriage, err error) {
			carried.Socket, err = s.take(fd, h)
			return carried, err
		})
	})
	switch {
	case errors.Is(err, errTwoWriters):
		carried.End(relay.EndClientGone)
		panic(http.ErrAbortHandler)
	case err != nil:
		s.keep(err)
		return false
	}
	return true
}

// take gives a socket to direct delivery.
func (s *Session) take(fd int, h *relay.Handover) (*direct.Socket, error) {
	return s.service.Direct.Take(&direct.Handover{
		FD:        fd,
		Client:    directClient{s.reader.Subscriber},
		Stream:    delivery{s.service, s.reader.Topic(), s.reader.Audience(), s.gzip != nil},
		Log:       h.Log,
		Cursor:    h.Cursor,
		Gzip:      s.gzip,
		Events:    h.Events,
		Bytes:     h.Bytes,
		EndAt:     h.EndAt,
		EndReason: direct.Reason(h.EndReason),
	})
}

// keep leaves the connection where it is.
func (s *Session) keep(why error) {
	s.detachable = false
	s.service.Kept(s.reader, why)
}

// Kernel is the sockets of the operating system.
type Kernel struct{}

func (Kernel) Network() (direct.Network, error) { return direct.OpenKernel() }

func (Kernel) Beneath(w http.ResponseWriter, r *http.Request, coding string) bool {
	if !direct.Supported || r.TLS != nil {
		return false
	}
	switch connOf(r).(type) {
	case *net.TCPConn, *net.UnixConn:
		return Transparent(w, coding)
	}
	return false
}

// boundInTime reports whether the operator has bounded how long a response may
// take, or how slow it may be, or has less patience with a write than we have. That
// is for the HTTP server to see to.
func (c *Service) boundInTime(r *http.Request) bool {
	if srv, _ := r.Context().Value(caddyhttp.ServerCtxKey).(*caddyhttp.Server); srv != nil && srv.WriteTimeout > 0 {
		return true
	}
	_, idle := caddyhttp.IdleTimeoutsFromContext(r.Context())
	return idle != nil && (idle.Deadline.MinRate > 0 || !idle.Deadline.HardDeadline.IsZero() ||
		idle.Deadline.Timeout < c.Timeout)
}

// Transparent reports whether what is written to w is what is sent. That is so of
// the writers of net/http and of Caddy, unless they buffer or encode, and of a Bottom; of
// others nobody knows. The coding is what our own answer has: "" for none.
func Transparent(w http.ResponseWriter, coding string) bool {
	header := w.Header()
	if header.Get("Content-Encoding") != coding || header.Get("Transfer-Encoding") != "" {
		return false
	}
	for {
		if rec, ok := w.(caddyhttp.ResponseRecorder); ok && rec.Buffered() && rec.Status() != 0 {
			return false
		}
		if _, ok := w.(Bottom); ok {
			return true
		}
		pkg := reflect.Indirect(reflect.ValueOf(w)).Type().PkgPath()
		if pkg == "net/http" {
			return true
		}
		outer, ok := w.(interface{ Unwrap() http.ResponseWriter })
		if !ok || !strings.HasPrefix(pkg+"/", caddysWriters) {
			return false
		}
		w = outer.Unwrap()
	}
}

// A Bottom is a response writer of this module that stands where net/http's would.
type Bottom interface{ IsBottom() }

// caddysWriters is where Caddy's own response writers are from.
const caddysWriters = "github.com/caddyserver/caddy/v2/modules/caddyhttp/"

func (Kernel) Duplicate(r *http.Request) (int, error) {
	c, ok := connOf(r).(syscall.Conn)
	if !ok {
		return 0, errChanged
	}
	return direct.Duplicate(c)
}

func (Kernel) Held(r *http.Request) (bytes int, full, known bool) {
	c := connOf(r)
	for {
		switch outer := c.(type) {
		case syscall.Conn:
			return direct.Held(outer)
		case interface{ NetConn() net.Conn }: // TLS
			c = outer.NetConn()
		case interface{ Raw() net.Conn }: // the PROXY protocol
			c = outer.Raw()
		default:
			return 0, false, false
		}
	}
}

func (Kernel) Detach(w http.ResponseWriter) error {
	c, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return fmt.Errorf("taking a connection from the HTTP server: %w", err)
	}
	return c.Close()
}

// A socket is a client that was handed over, as the engine has it.
type socket struct{ *direct.Socket }

// End implements relay.Carriage.
func (s socket) End(reason relay.EndReason) { s.Socket.End(direct.Reason(reason)) }

// A directClient is that client, as direct delivery has it.
type directClient struct{ *relay.Subscriber }

// Farewell implements direct.Client.
func (c directClient) Farewell(reason direct.Reason) []byte {
	return c.Subscriber.Farewell(relay.EndReason(reason))
}

// Ended implements direct.Client.
func (c directClient) Ended(reason direct.Reason, events, bytes uint64) {
	c.Leave(relay.EndReason(reason), events, bytes)
}

// A delivery is a topic as direct delivery has it: for one audience, and for those of it that
// get gzip or for those that do not.
type delivery struct {
	*Service
	topic      *relay.Topic
	audience   uint8
	compressed bool
}

// Ending implements direct.Stream.
func (d delivery) Ending() (direct.Ending, bool) {
	e := d.topic.Ending()
	if e == nil {
		return direct.Ending{}, false
	}
	ending := direct.Ending{Reason: direct.Reason(e.Reason), Over: e.Over, Drain: e.Drain}
	if e.Reason == relay.EndExiting {
		ending.Grace = ExitGrace
	}
	return ending, true
}

// Heartbeat implements direct.Stream.
func (d delivery) Heartbeat() []byte { return d.topic.Words(d.audience).Heartbeat }

// Gap implements direct.Stream.
func (d delivery) Gap() []byte { return d.topic.Words(d.audience).Gap }

// Delivered implements direct.Stream.
func (d delivery) Delivered(clients int, batch direct.Delivery) {
	d.topic.CountDelivery(uint64(clients*batch.Events), uint64(clients*batch.Bytes))
	if batch.Compressed > 0 {
		d.topic.CountCompressed(uint64(clients*batch.Compressed), uint64(clients*batch.Bytes))
	}
	// One observation for all that a batch was written to.
	d.Service.Delivered(time.Since(batch.Since))
}

// Beaten implements direct.Stream.
func (d delivery) Beaten(clients int) { d.topic.CountHeartbeats(uint64(clients)) }

// Interface guards
var (
	_ direct.Stream  = delivery{}
	_ direct.Client  = directClient{}
	_ relay.Carriage = socket{}
)

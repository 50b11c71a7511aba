package oracle

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/fcgi"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// origins are the applications behind the sites of one run. All of them answer
// with an event stream. Each event carries the number of its tick, which is the
// same for all streams of the run, and what the origin has seen of the request
// that this stream answers.
type origins struct {
	mu sync.Mutex

	// Guarded by mu.
	addrs     map[string]string // of those that the Caddyfile names
	listeners []*listener
	streams   map[*stream]struct{}
	last      int           // the number of the last tick
	opened    int           // streams, over the whole run
	ticked    chan struct{} // closed at the next tick
	closed    chan struct{}
}

// A stream is one answer of an origin.
type stream struct {
	origin string
	saw    string
	ticks  chan int
}

// An event is what the data of each event of an origin says.
type event struct {
	N   int    `json:"n"`   // the tick; 0 is the first event of a connection
	Saw string `json:"saw"` // what the origin saw of the request
}

// maxTicks is more than a run has: a tick never waits for a stream.
const maxTicks = 1000

func newOrigins() *origins {
	return &origins{
		addrs:   make(map[string]string),
		streams: make(map[*stream]struct{}),
		ticked:  make(chan struct{}),
		closed:  make(chan struct{}),
	}
}

// addr returns the address of an origin, which is started if it was not yet.
func (o *origins) addr(name string) (string, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if addr := o.addrs[name]; addr != "" {
		return addr, nil
	}
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", fmt.Errorf("starting origin %s: %w", name, err)
	}
	ln := &listener{Listener: tcp}
	o.listeners = append(o.listeners, ln)
	o.addrs[name] = ln.Addr().String()
	switch name {
	case "PHP":
		go func() { _ = fcgi.Serve(ln, o.stream(name)) }()
	case "AUTH":
		go func() { _ = http.Serve(ln, http.HandlerFunc(authorize)) }()
	default:
		go func() { _ = http.Serve(ln, o.stream(name)) }()
	}
	return o.addrs[name], nil
}

// close ends all streams and closes all connections.
func (o *origins) close() {
	o.mu.Lock()
	defer o.mu.Unlock()
	close(o.closed)
	for _, ln := range o.listeners {
		ln.Close()
	}
}

// A listener closes its connections with itself: Caddy would keep them for a while.
type listener struct {
	net.Listener

	mu sync.Mutex

	// Guarded by mu.
	conns  []net.Conn
	closed bool
}

// Accept implements net.Listener.
func (l *listener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		conn.Close()
		return nil, net.ErrClosed
	}
	l.conns = append(l.conns, conn)
	return conn, nil
}

// Close implements net.Listener.
func (l *listener) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	for _, conn := range l.conns {
		conn.Close()
	}
	return l.Listener.Close()
}

// newest returns the number of the last tick.
func (o *origins) newest() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.last
}

// tick sends the next event on all streams, and returns its number.
func (o *origins) tick() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.last++
	for s := range o.streams {
		s.ticks <- o.last
	}
	close(o.ticked)
	o.ticked = make(chan struct{})
	return o.last
}

// lookup is how long an origin takes to find what a client has missed.
const lookup = 50 * time.Millisecond

// lookUp waits for the next tick and a little longer, so that other streams have
// brought its event before this one repeats it.
func (o *origins) lookUp(r *http.Request) {
	o.mu.Lock()
	ticked := o.ticked
	o.mu.Unlock()
	select {
	case <-ticked:
		time.Sleep(lookup)
	case <-r.Context().Done():
	case <-o.closed:
	}
}

// count returns how many streams the origins have begun.
func (o *origins) count() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.opened
}

// enter makes s get all ticks from now on, and before them those after the one
// that its client had last. It reports whether there is such a one.
func (o *origins) enter(s *stream, lastEventID string) (resumes bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.streams[s] = struct{}{}
	o.opened++
	after, err := strconv.Atoi(lastEventID)
	if err != nil {
		return false
	}
	for n := after + 1; n <= o.last; n++ {
		s.ticks <- n
	}
	return true
}

func (o *origins) leave(s *stream) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.streams, s)
}

func (o *origins) stream(name string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		s := &stream{origin: name, saw: fingerprint(name, r), ticks: make(chan int, maxTicks)}
		switch {
		case strings.HasPrefix(r.URL.Path, "/page"):
			fmt.Fprintln(w, s.saw)
			return
		case strings.HasPrefix(r.URL.Path, "/missing"):
			http.Error(w, s.saw, http.StatusNotFound)
			return
		}
		header := w.Header()
		header.Set("Content-Type", "text/event-stream")
		header.Set("Cache-Control", "no-cache")
		if name == "LANGUAGE" {
			header.Set("Vary", "Accept-Language")
		}
		control := http.NewResponseController(w)
		if name == "GREETER" && r.Header.Get("Last-Event-ID") != "" {
			o.lookUp(r)
		}
		resumes := o.enter(s, r.Header.Get("Last-Event-ID"))
		defer o.leave(s)
		if resumes && name != "GREETER" {
			fmt.Fprint(w, ": welcome back\n\n") // FastCGI sends no header before the first byte
		} else {
			s.send(w, 0)
		}
		for {
			if control.Flush() != nil {
				return
			}
			select {
			case n := <-s.ticks:
				s.send(w, n)
			case <-r.Context().Done():
				return
			case <-o.closed:
				return
			}
		}
	}
}

// send writes the event of a tick. The first event of a connection has no id,
// for a client that shares the connection does not get it.
func (s *stream) send(w http.ResponseWriter, n int) {
	data, err := json.Marshal(event{N: n, Saw: s.saw})
	if err != nil {
		panic(err) // a number and a text
	}
	if n > 0 {
		fmt.Fprintf(w, "id: %d\n", n)
	}
	fmt.Fprintf(w, "data: %s\n\n", data)
}

// fingerprint is what must not be confused between clients: what the site has
// made of a request, and the credentials that it carries. What says nothing
// about who may see a stream (User-Agent, X-Forwarded-For) is left out.
func fingerprint(origin string, r *http.Request) string {
	saw := []string{origin, r.Method, r.URL.RequestURI(), "host=" + strings.ToLower(r.Host)}
	names := make([]string, 0, len(r.Header))
	for name := range r.Header {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		switch {
		case strings.HasPrefix(name, "X-Site-"),
			slices.Contains([]string{"Cookie", "Authorization", "X-Role"}, name),
			name == "X-Forwarded-Prefix",
			strings.HasPrefix(r.Header.Get(name), "site-"), // the site has set what clients may send
			name == "X-Forwarded-Host" && !strings.EqualFold(r.Header.Get(name), r.Host),
			name == "X-Forwarded-Proto" && r.Header.Get(name) != "http",
			origin == "LANGUAGE" && name == "Accept-Language":
			saw = append(saw, fmt.Sprintf("%s=%s", name, strings.Join(r.Header[name], ", ")))
		}
	}
	if origin == "PHP" {
		env := fcgi.ProcessEnv(r)
		for _, name := range []string{"DOCUMENT_ROOT", "SCRIPT_FILENAME", "SCRIPT_NAME", "PATH_INFO"} {
			saw = append(saw, name+"="+strings.ReplaceAll(env[name], root, ""))
		}
	}
	return strings.Join(saw, " ")
}

// authorize is what forward_auth asks. /who says who is asking, /check refuses
// everyone who is nobody. The parameter by names the trait that it looks at.
func authorize(w http.ResponseWriter, r *http.Request) {
	user := "nobody"
	if t := traits[r.URL.Query().Get("by")]; t.asks != nil && t.asks(r) {
		user = "insider"
	}
	w.Header().Set("X-Site-User", user)
	if strings.HasPrefix(r.URL.Path, "/check") && user == "nobody" {
		w.Header().Set("WWW-Authenticate", "Insider")
		http.Error(w, "insiders only", http.StatusUnauthorized)
	}
}

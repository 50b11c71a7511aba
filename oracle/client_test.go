package oracle

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// patience is how long a client waits for an answer, or for an event that was
// sent, before it counts as not got. A right configuration never takes as long.
const patience = 5 * time.Second

// An answer is all that counts of what a client has got for one request.
type answer struct {
	failed string // why there is no answer
	late   bool   // an answer or an event did not come in time
	reset  bool   // the connection was reset before an answer
	status int
	header []string // that the site sets, or that a client acts on
	body   string   // unless it is a stream
	stream bool

	saw   []string // what the origin saw, of the stream's events: each once, in order
	ticks []int    // the numbers of the events
	other []string // what else was in the stream and should not be
	ended bool
}

// A client is a request that is under way.
type client struct {
	id   identity
	url  string
	stop context.CancelFunc
	done chan struct{} // closed when everything is read

	mu sync.Mutex

	// Guarded by mu.
	answer
	lastID  string
	changed chan struct{} // closed when answer has changed
}

// connect sends a request and returns when it is answered. An answer that is no
// stream is read to its end.
func connect(id identity, scheme string, port int, url, lastID string) *client {
	ctx, stop := context.WithCancel(context.Background())
	c := &client{id: id, url: url, stop: stop, done: make(chan struct{}), changed: make(chan struct{}), lastID: lastID}
	req, err := http.NewRequestWithContext(ctx, id.method, fmt.Sprintf("%s://127.0.0.1:%d%s", scheme, port, url), nil)
	if err != nil {
		panic(err) // the tables are wrong
	}
	req.Host = id.host
	for name, value := range id.header {
		req.Header.Set(name, value)
	}
	if lastID != "" {
		req.Header.Set("Last-Event-ID", lastID)
	}
	transport := id.transport()
	resp, err := transport.RoundTrip(req)
	if err != nil {
		c.failed, c.reset = "no answer", errors.Is(err, syscall.ECONNRESET)
		if why, ok := errors.AsType[syscall.Errno](err); ok && isDial(err) {
			c.failed = "no connection: " + why.Error()
		} else if why, ok := errors.AsType[net.Error](err); ok && why.Timeout() {
			c.failed, c.late = fmt.Sprintf("no answer within %v", patience), true
		}
		stop()
		close(c.done)
		return c
	}
	c.status = resp.StatusCode
	c.header = telling(resp.Header, port)
	mediaType, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	c.stream = c.status == http.StatusOK && mediaType == "text/event-stream"
	if c.stream {
		go c.follow(resp.Body, transport)
		return c
	}
	defer close(c.done)
	defer resp.Body.Close()
	timer := time.AfterFunc(patience, stop)
	defer timer.Stop()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	c.body = string(body)
	c.ended = err == nil
	stop()
	transport.CloseIdleConnections()
	return c
}

func isDial(err error) bool {
	op, ok := errors.AsType[*net.OpError](err)
	return ok && op.Op == "dial"
}

// dial connects from the address of the client. The connection leaves nothing
// behind when it is closed: a run has so many that the system would run out of
// ports.
func (id identity) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(id.from)}}
	conn, err := dialer.DialContext(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	return conn, conn.(*net.TCPConn).SetLinger(0)
}

// transport makes one connection.
func (id identity) transport() *http.Transport {
	t := &http.Transport{
		DialContext:           id.dial,
		DisableCompression:    true,
		ResponseHeaderTimeout: patience,
		Protocols:             new(http.Protocols),
		TLSClientConfig: &tls.Config{
			RootCAs:    authority.pool,
			ServerName: id.host,
		},
	}
	if id.cert {
		t.TLSClientConfig.Certificates = []tls.Certificate{authority.client}
	}
	switch id.protocol {
	case "h2":
		t.Protocols.SetHTTP2(true)
		t.Protocols.SetUnencryptedHTTP2(true)
	default:
		t.Protocols.SetHTTP1(true)
	}
	return t
}

// telling returns the lines of a header that make a difference to a client, or
// that only a configuration sets.
func telling(header http.Header, port int) []string {
	var lines []string
	for name, values := range header {
		switch {
		case strings.HasPrefix(name, "X-Site-"),
			slices.Contains([]string{"Location", "Www-Authenticate", "Set-Cookie"}, name):
			for _, value := range values {
				lines = append(lines, name+": "+strings.ReplaceAll(value, strconv.Itoa(port), "PORT"))
			}
		case name == "Content-Type":
			mediaType, _, _ := mime.ParseMediaType(values[0])
			lines = append(lines, name+": "+mediaType)
		}
	}
	slices.Sort(lines)
	return lines
}

// follow reads a stream to its end.
func (c *client) follow(body io.ReadCloser, transport *http.Transport) {
	defer close(c.done)
	defer transport.CloseIdleConnections()
	defer body.Close()
	lines := bufio.NewScanner(body)
	lines.Buffer(nil, 1<<20)
	var b block
	for lines.Scan() {
		if line := lines.Text(); line != "" {
			b.add(line)
			continue
		}
		c.update(func() { c.take(b) })
		b = block{}
	}
	c.update(func() { c.ended = true })
}

func (c *client) update(change func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	change()
	close(c.changed)
	c.changed = make(chan struct{})
}

// A block is the lines up to a blank one.
type block struct {
	data  []string
	id    *string
	other []string
}

func (b *block) add(line string) {
	name, value, _ := strings.Cut(line, ":")
	value = strings.TrimPrefix(value, " ")
	switch name {
	case "", "retry": // a comment, or a reconnection time
	case "id":
		b.id = &value
	case "data":
		b.data = append(b.data, value)
	default:
		b.other = append(b.other, line)
	}
}

// take accounts for a block. c.mu must be held.
func (c *client) take(b block) {
	if b.id != nil {
		c.lastID = *b.id
	}
	c.other = append(c.other, b.other...)
	if b.data == nil {
		return
	}
	var e event
	if err := json.Unmarshal([]byte(strings.Join(b.data, "\n")), &e); err != nil {
		c.other = append(c.other, b.data...)
		return
	}
	if !slices.Contains(c.saw, e.Saw) {
		c.saw = append(c.saw, e.Saw)
	}
	if e.N > 0 {
		c.ticks = append(c.ticks, e.N)
		if b.id == nil || *b.id != strconv.Itoa(e.N) {
			c.other = append(c.other, fmt.Sprintf("event %d has a wrong id", e.N))
		}
	}
}

// await waits until the client has the event of a tick, or its stream has ended.
func (c *client) await(n int) {
	deadline := time.After(patience)
	for {
		c.mu.Lock()
		got := !c.stream || c.ended || c.late || slices.Contains(c.ticks, n)
		changed := c.changed
		c.mu.Unlock()
		if got {
			return
		}
		select {
		case <-changed:
		case <-deadline:
			c.update(func() { c.late = true })
			return
		}
	}
}

// stuck reports whether the client has waited in vain.
func (c *client) stuck() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.late
}

// leave closes the connection, and returns what came over it.
func (c *client) leave() answer {
	c.mu.Lock()
	got := c.answer
	c.mu.Unlock()
	c.stop()
	<-c.done
	return got
}

// over reports whether the stream has ended by itself, and the last event id.
func (c *client) over() (ended bool, lastID string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.stream && c.ended, c.lastID
}

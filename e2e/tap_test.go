package e2e

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net"
	"net/http"
	"regexp"
	"slices"
	"sync"
	"testing"
)

// A tap is a TCP proxy in front of one client, which notes what it asks for and what
// it is sent, byte for byte. All clients ask for the same host. What a browser loads
// before its page asks for anything is not noted.
type tap struct {
	addr   string
	target string

	mu sync.Mutex

	// Guarded by mu.
	open    map[net.Conn]struct{}
	closed  bool
	asked   []*http.Request
	streams []*tapped
}

// A tapped is an answer: its header, and its body up to now.
type tapped struct {
	header http.Header
	body   []byte
	over   bool
}

func newTap(t *testing.T, target string) *tap {
	t.Helper()
	p := &tap{target: target, open: make(map[net.Conn]struct{})}
	p.addr = accepting(t, p.relay, func() {
		p.mu.Lock()
		p.closed = true
		p.mu.Unlock()
		p.cut()
	})
	return p
}

func (p *tap) relay(client net.Conn) {
	p.mu.Lock()
	p.open[client] = struct{}{}
	closed := p.closed
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		delete(p.open, client)
		p.mu.Unlock()
		client.Close()
	}()
	if closed {
		return
	}
	server, err := net.Dial("tcp", p.target)
	if err != nil {
		return
	}
	defer server.Close()
	var all sync.WaitGroup
	way := func(to io.WriteCloser, from io.ReadCloser) (copied *bufio.Reader) {
		r, w := io.Pipe()
		all.Go(func() {
			_, err := io.Copy(to, io.TeeReader(from, w))
			w.CloseWithError(errors.Join(io.EOF, err))
			to.Close()
			from.Close()
		})
		return bufio.NewReader(r)
	}
	requests, answers := way(server, sameHost{client, p}), way(client, server)
	for p.note(requests, answers) == nil {
	}
	// What cannot be read must still go through.
	for _, rest := range []io.Reader{requests, answers} {
		all.Go(func() { _, _ = io.Copy(io.Discard, rest) })
	}
	all.Wait()
}

// A sameHost is requests as they are made to the target.
type sameHost struct {
	net.Conn
	*tap
}

// Read implements io.Reader. The header of a GET comes in one piece.
func (r sameHost) Read(b []byte) (int, error) {
	n, err := r.Conn.Read(b[:len(b)/2])
	return copy(b, bytes.ReplaceAll(b[:n], []byte(r.addr), []byte(r.target))), err
}

// note reads a request and its answer.
func (p *tap) note(requests, answers *bufio.Reader) error {
	req, err := http.ReadRequest(requests)
	if err != nil {
		return err
	}
	loads := loadsPage(req)
	if !loads {
		p.mu.Lock()
		p.asked = append(p.asked, req)
		p.mu.Unlock()
	}
	resp, err := http.ReadResponse(answers, req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	s := &tapped{header: resp.Header}
	if !loads {
		p.mu.Lock()
		p.streams = append(p.streams, s)
		p.mu.Unlock()
	}
	buf := make([]byte, 4<<10)
	for {
		n, err := resp.Body.Read(buf)
		p.mu.Lock()
		s.body = append(s.body, buf[:n]...)
		s.over = err != nil
		p.mu.Unlock()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// loadsPage says that a browser asks for a page or its icon. It is no request of the
// application, which is the page's script.
func loadsPage(r *http.Request) bool {
	dest := r.Header.Get("Sec-Fetch-Dest")
	return dest == "document" || dest == "image"
}

// cut resets the connections of the client.
func (p *tap) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for conn := range p.open {
		_ = conn.(*net.TCPConn).SetLinger(0)
		conn.Close()
	}
}

// bodies is what the client was sent in each answer.
func (p *tap) bodies() (all [][]byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, s := range p.streams {
		all = append(all, slices.Clone(s.body))
	}
	return all
}

// count is how often the client was sent something.
func (p *tap) count(what string) (n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, s := range p.streams {
		n += bytes.Count(s.body, []byte(what))
	}
	return n
}

// heartbeat is an empty comment.
var heartbeat = regexp.MustCompile(`(?m)^:\n`)

// heartbeats is how many the client was sent.
func (p *tap) heartbeats() (n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, s := range p.streams {
		n += len(heartbeat.FindAllIndex(s.body, -1))
	}
	return n
}

// opened is how many answers have begun, and whether the newest is not over.
func (p *tap) opened() (n int, open bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	n = len(p.streams)
	return n, n > 0 && !p.streams[n-1].over
}

// firstRequest is the header that the client asked with first.
func (p *tap) firstRequest() http.Header {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.asked) == 0 {
		return nil
	}
	return p.asked[0].Header
}

// answers is the headers of all answers.
func (p *tap) answers() (headers []http.Header) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, s := range p.streams {
		headers = append(headers, s.header)
	}
	return headers
}

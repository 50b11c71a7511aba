package ssefanout

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/quic-go/quic-go/http3"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"

	_ "github.com/caddyserver/caddy/v2/modules/standard"

	"github.com/sse-fanout/caddy-sse-fanout/internal/direct"
	"github.com/sse-fanout/caddy-sse-fanout/internal/relay"
)

// The tests of this file run a real Caddy, with origins and clients on sockets.
// There is one Caddy in a process, so none of them is parallel.

// A liveOrigin is an HTTP server that sends the same events to all who ask.
type liveOrigin struct {
	*httptest.Server
	addr string

	mu       sync.Mutex
	requests []*http.Request
	conns    map[chan string]bool
}

func newLiveOrigin(t *testing.T) *liveOrigin {
	o := &liveOrigin{conns: make(map[chan string]bool)}
	o.Server = httptest.NewServer(o)
	o.addr = o.Listener.Addr().String()
	t.Cleanup(func() {
		o.CloseClientConnections()
		o.Close()
	})
	return o
}

func (o *liveOrigin) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	events := make(chan string, 1000)
	o.mu.Lock()
	o.requests = append(o.requests, r)
	o.conns[events] = true
	o.mu.Unlock()
	defer func() {
		o.mu.Lock()
		defer o.mu.Unlock()
		delete(o.conns, events)
	}()
	w.Header().Set("Content-Type", "text/event-stream")
	control := http.NewResponseController(w)
	for {
		if control.Flush() != nil {
			return
		}
		select {
		case text := <-events:
			_, _ = io.WriteString(w, text)
		case <-r.Context().Done():
			return
		}
	}
}

func (o *liveOrigin) send(text string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for events := range o.conns {
		events <- text
	}
}

// sendFirst sends text as soon as the origin is asked again: the first client of a
// topic of the wrapping form has no header before the first event, for a while.
func (o *liveOrigin) sendFirst(text string) {
	asked := len(o.asked())
	go func() {
		for end := time.Now().Add(10 * time.Second); len(o.asked()) == asked; time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				return // the client has waited as long
			}
		}
		o.send(text)
	}()
}

func (o *liveOrigin) asked() []*http.Request {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.Clip(o.requests)
}

func (o *liveOrigin) open() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.conns)
}

// A stream is what a client gets.
type stream struct {
	t      *testing.T
	header http.Header
	body   *bufio.Reader
	cancel context.CancelFunc
}

// open asks for an event stream and reads its primer.
func open(t *testing.T, client *http.Client, url string, header ...string) *stream {
	t.Helper()
	s := ask200(t, client, url, header...)
	if got, want := s.next(), ": sse_fanout\n"; !strings.HasPrefix(got, want) {
		t.Errorf("the stream begins with %q, want %q", got, want)
	}
	return s
}

// ask200 makes a client's request and checks that an event stream answers it.
func ask200(t *testing.T, client *http.Client, url string, header ...string) *stream {
	t.Helper()
	resp, cancel := do(t, client, url, header...)
	if resp.StatusCode != http.StatusOK || resp.Header.Get("Content-Type") != "text/event-stream" {
		t.Fatalf("got status %d and type %q", resp.StatusCode, resp.Header.Get("Content-Type"))
	}
	return &stream{t: t, header: resp.Header, body: bufio.NewReader(resp.Body), cancel: cancel}
}

func do(t *testing.T, client *http.Client, url string, header ...string) (*http.Response, context.CancelFunc) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	asBrowser(r)
	for i := 0; i < len(header); i += 2 {
		if header[i] == "Host" {
			r.Host = header[i+1]
		}
		r.Header.Set(header[i], header[i+1])
	}
	timer := time.AfterFunc(10*time.Second, cancel)
	defer timer.Stop()
	resp, err := client.Do(r)
	for errors.Is(err, syscall.ECONNRESET) || errors.Is(err, io.EOF) {
		// A reload resets the connections that nobody has accepted yet, and
		// net/http closes those whose first request it reads after that.
		resp, err = client.Do(r)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { resp.Body.Close() })
	return resp, cancel
}

// next returns the next block, without the blank line that ends it, or what
// there is before the stream ends.
func (s *stream) next() string {
	s.t.Helper()
	timer := time.AfterFunc(10*time.Second, s.cancel)
	defer timer.Stop()
	var block strings.Builder
	for {
		line, err := s.body.ReadString('\n')
		if line == "\n" || err == io.EOF {
			return block.String()
		}
		if err != nil {
			s.t.Fatalf("reading a stream: %v", err)
		}
		block.WriteString(line)
	}
}

// expect reads as many blocks as are in want.
func (s *stream) expect(want string) {
	s.t.Helper()
	var got strings.Builder
	for range strings.Count(want, "\n\n") {
		got.WriteString(s.next() + "\n")
	}
	if got.String() != want {
		s.t.Errorf("client got %q, want %q", got.String(), want)
	}
}

// A liveSite is a running Caddy.
type liveSite struct {
	t         *testing.T
	url, tls  string // its two addresses
	http      int    // port of url
	client    *http.Client
	log       string // a file
	options   string // global
	https     int
	directory string
}

// freePort returns a port that was not returned before. It is below those that the
// system gives to connections and to listeners without a port, which may take any of
// theirs until Caddy listens.
func freePort(t *testing.T) int {
	t.Helper()
	for range 1000 {
		port := 20000 + int(lastPort.Add(1)+uint32(os.Getpid()))%10000
		l, err := net.Listen("tcp", fmt.Sprintf(":%d", port))
		if err != nil {
			continue
		}
		l.Close()
		return port
	}
	t.Fatal("no port is free")
	return 0
}

var lastPort atomic.Uint32

// run starts Caddy with a site on two addresses: http and https. It is stopped
// at the end of the test.
func run(t *testing.T, directives string, options ...string) *liveSite {
	t.Helper()
	s := newSite(t, options...)
	s.load(directives)
	return s
}

// newSite makes a site that is yet to be loaded.
func newSite(t *testing.T, options ...string) *liveSite {
	t.Helper()
	s := &liveSite{t: t, http: freePort(t), https: freePort(t), directory: t.TempDir(), options: strings.Join(options, "\n")}
	s.url, s.tls = fmt.Sprintf("http://127.0.0.1:%d", s.http), fmt.Sprintf("https://127.0.0.1:%d", s.https)
	s.log = filepath.Join(s.directory, "log")
	pool := s.certificate()
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}, DisableCompression: true}
	s.client = &http.Client{Transport: transport}
	t.Cleanup(transport.CloseIdleConnections)
	t.Cleanup(func() {
		if err := caddy.Stop(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// load loads a configuration with these directives for the site.
func (s *liveSite) load(directives string) {
	s.t.Helper()
	s.loadSites(fmt.Sprintf("http://:%d {\n%s\n}\nhttps://127.0.0.1:%d {\ntls %s %s\n%s\n}\n",
		s.http, directives, s.https, filepath.Join(s.directory, "cert"), filepath.Join(s.directory, "key"), directives))
}

func (s *liveSite) loadSites(sites string) {
	s.t.Helper()
	admin := "admin off"
	if strings.Contains(s.options, "admin ") {
		admin = ""
	}
	caddyfile := fmt.Sprintf("{\n%s\npersist_config off\nauto_https disable_redirects\nskip_install_trust\n"+
		"grace_period 1s\nstorage file_system %s\nlog {\noutput file %s\nlevel DEBUG\n}\n%s\n}\n%s",
		admin, s.directory, s.log, s.options, sites)
	config, _, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte(caddyfile), nil)
	if err != nil {
		s.t.Fatalf("%v in\n%s", err, caddyfile)
	}
	if err := caddy.Load(config, true); err != nil {
		s.t.Fatal(err)
	}
}

// certificate makes the files cert and key, and returns who trusts them.
func (s *liveSite) certificate() *x509.CertPool {
	s.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		s.t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber:          big.NewInt(1),
		NotBefore:             time.Now().Add(-time.Hour),
		NotAfter:              time.Now().Add(time.Hour),
		IPAddresses:           []net.IP{net.IPv4(127, 0, 0, 1)},
		IsCA:                  true,
		BasicConstraintsValid: true,
	}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		s.t.Fatal(err)
	}
	encoded, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		s.t.Fatal(err)
	}
	for name, block := range map[string]*pem.Block{
		"cert": {Type: "CERTIFICATE", Bytes: cert},
		"key":  {Type: "PRIVATE KEY", Bytes: encoded},
	} {
		if err := os.WriteFile(filepath.Join(s.directory, name), pem.EncodeToMemory(block), 0o600); err != nil {
			s.t.Fatal(err)
		}
	}
	parsed, err := x509.ParseCertificate(cert)
	if err != nil {
		s.t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(parsed)
	return pool
}

// httpVersions are those that site.over knows.
var httpVersions = []string{"HTTP/1.1", "HTTP/2.0", "HTTP/3.0"}

// over returns the site's address and a client for a version of HTTP.
func (s *liveSite) over(version string) (string, *http.Client) {
	config := s.client.Transport.(*http.Transport).TLSClientConfig.Clone()
	switch version {
	case "HTTP/2.0":
		transport := &http.Transport{TLSClientConfig: config, ForceAttemptHTTP2: true, DisableCompression: true}
		s.t.Cleanup(transport.CloseIdleConnections)
		return s.tls, &http.Client{Transport: transport}
	case "HTTP/3.0":
		transport := &http3.Transport{TLSClientConfig: config, DisableCompression: true}
		s.t.Cleanup(func() { transport.Close() })
		return s.tls, &http.Client{Transport: transport}
	}
	return s.url, s.client
}

func TestManyClientsShareOneConnectionToTheOrigin(t *testing.T) {
	for _, version := range httpVersions {
		t.Run(version, func(t *testing.T) {
			origin := newLiveOrigin(t)
			s := run(t, "sse_fanout "+origin.addr+" {\nlinger 100ms\n}")
			const n = 200
			streams := make([]*stream, n)
			url, one := s.over(version)
			_, other := s.over(version)
			clients := []*http.Client{one, other} // as one connection of HTTP/3 takes but a hundred requests at once
			var opening sync.WaitGroup
			for i := range streams {
				opening.Go(func() {
					streams[i] = open(t, clients[i%2], url+"/events", "Cookie", "session=secret", "Authorization", "Bearer secret",
						"User-Agent", "Mozilla/secret", "X-Forwarded-For", "203.0.113.7", "X-Secret", strconv.Itoa(i))
				})
			}
			opening.Wait()
			if t.Failed() {
				return
			}
			for i := range 100 {
				origin.send(numbered(i, i))
			}
			for _, stream := range streams {
				stream.expect(numbered(0, 99))
			}

			asked := origin.asked()
			if len(asked) != 1 {
				t.Fatalf("the origin was asked %d times, want once", len(asked))
			}
			want := map[string]string{"User-Agent": "caddy-sse-fanout", "X-Forwarded-For": "192.0.2.1"}
			for _, name := range []string{"User-Agent", "X-Forwarded-For", "Cookie", "Authorization", "X-Secret"} {
				if got := asked[0].Header.Get(name); got != want[name] {
					t.Errorf("the origin got %s %q, want %q", name, got, want[name])
				}
			}
			for _, stream := range streams {
				stream.cancel()
			}
			waitFor(t, "the connection to the origin to close", func() bool { return origin.open() == 0 })
		})
	}
}

func TestNothingHoldsAStreamBack(t *testing.T) {
	for form, directive := range map[string]string{
		"endpoint": "sse_fanout %s",
		"wrapping": "sse_fanout\nreverse_proxy %s",
	} {
		for _, version := range []string{"HTTP/1.1", "HTTP/2.0"} {
			t.Run(form+", "+version, func(t *testing.T) {
				origin := newLiveOrigin(t)
				s := run(t, "encode zstd gzip\nlog\n"+fmt.Sprintf(directive, origin.addr), "metrics")
				url, client := s.over(version)
				origin.sendFirst(numbered(0, 0))
				c := open(t, client, url+"/events", "Accept-Encoding", "zstd, gzip")
				c.expect(numbered(0, 0))
				if got := c.header.Get("Content-Encoding"); got != "" {
					t.Fatalf("got Content-Encoding %q, want none", got)
				}
				for i := 1; i < 20; i++ {
					origin.send(numbered(i, i))
					c.expect(numbered(i, i)) // before the next is sent
				}
			})
		}
	}
}

// HTTP/2 resets a stream when its write deadline passes, even a quiet one.
func TestQuietStreamOutlivesTheServersWriteIdle(t *testing.T) {
	origin := newLiveOrigin(t)
	s := run(t, "sse_fanout "+origin.addr+" {\ndispatch_timeout 200ms\n}", "servers {\ntimeouts {\nwrite_idle 300ms\nread_body_idle 300ms\n}\n}")
	var streams []*stream
	for _, version := range httpVersions {
		url, client := s.over(version)
		streams = append(streams, open(t, client, url+"/events"))
	}
	for i := range 2 {
		time.Sleep(500 * time.Millisecond) // the time that passes is what is tested
		origin.send(numbered(i, i))
		for _, c := range streams {
			c.expect(numbered(i, i))
		}
	}
}

func TestNothingIsLeftWhenTheLastClientHasGone(t *testing.T) {
	origin := newLiveOrigin(t)
	s := run(t, "sse_fanout "+origin.addr+" {\nlinger 50ms\n}")
	visit := func() {
		for i := range 50 {
			c := open(t, s.client, s.url+"/"+strconv.Itoa(i%5))
			if i%3 == 0 {
				origin.send(numbered(i, i))
			}
			defer c.cancel()
		}
	}
	settled := func() bool {
		s.client.CloseIdleConnections()
		for _, p := range alive.all() {
			if !reflect.DeepEqual(p.relay.Holdings(), relay.Holdings{}) {
				return false
			}
		}
		return origin.open() == 0
	}
	visit()
	waitFor(t, "the first visitors to be forgotten", settled)
	before := runtime.NumGoroutine()
	for range 3 {
		visit()
		waitFor(t, "all visitors to be forgotten", settled)
	}
	waitFor(t, fmt.Sprintf("%d goroutines to be left", before), func() bool {
		s.client.CloseIdleConnections()
		return runtime.NumGoroutine() <= before
	})
}

// awaitVersion waits until only the newest configuration answers /version.
func (s *liveSite) awaitVersion(version, host string) {
	s.t.Helper()
	waitFor(s.t, "the new configuration to answer alone", func() bool {
		// The sockets of the old one close a little later, and drop what they
		// have not accepted.
		fresh := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
		for range 10 {
			r, err := http.NewRequestWithContext(s.t.Context(), http.MethodGet, s.url+"/version", nil)
			if err != nil {
				s.t.Fatal(err)
			}
			r.Host = host
			resp, err := fresh.Do(r)
			if err != nil {
				return false
			}
			body, _ := io.ReadAll(resp.Body)
			resp.Body.Close()
			if string(body) != version {
				return false
			}
		}
		return true
	})
}

func TestReloadKeepsTheStreamsOfAnUnchangedHandler(t *testing.T) {
	origin := newLiveOrigin(t)
	directive := "sse_fanout /events " + origin.addr
	s := run(t, directive+"\nrespond /version old")
	c := open(t, s.client, s.url+"/events")
	origin.send(numbered(1, 1))
	c.expect(numbered(1, 1))

	s.load(directive + "\nrespond /version new")
	s.awaitVersion("new", "")
	late := open(t, s.client, s.url+"/events")
	origin.send(numbered(2, 2))
	c.expect(numbered(2, 2))
	late.expect(numbered(2, 2))
	if n := len(origin.asked()); n != 1 {
		t.Errorf("the origin was asked %d times, want once", n)
	}
}

func TestReloadDrainsTheStreamsOfAChangedHandler(t *testing.T) {
	for name, after := range map[string]string{
		"changed": "sse_fanout /events %s {\nstream_close_delay 200ms\nretry 4s\n}",
		"removed": "respond %s",
	} {
		t.Run(name, func(t *testing.T) {
			origin := newLiveOrigin(t)
			s := run(t, "sse_fanout /events "+origin.addr+" {\nstream_close_delay 200ms\n}")
			var streams []*stream
			for range 20 {
				streams = append(streams, open(t, s.client, s.url+"/events"))
			}
			s.load(fmt.Sprintf(after, origin.addr))
			retries := make(map[int]bool)
			for _, c := range streams {
				last := c.next()
				retry, err := strconv.Atoi(strings.TrimSuffix(strings.TrimPrefix(last, "retry: "), "\n"))
				if err != nil || retry < 3000 || retry > 3200 {
					t.Fatalf("the stream ends with %q, want a retry between 3000 and 3200", last)
				}
				if rest := c.next(); rest != "" {
					t.Errorf("after the retry came %q", rest)
				}
				retries[retry] = true
			}
			if len(retries) < 5 {
				t.Errorf("20 clients were told %d different times to come back after", len(retries))
			}
			waitFor(t, "the old connection to the origin to close", func() bool { return origin.open() == 0 })
		})
	}
}

// needsDirect skips a test where connections are never handed over.
func needsDirect(t *testing.T) {
	t.Helper()
	if !direct.Supported {
		t.Skip("direct delivery is for Linux")
	}
}

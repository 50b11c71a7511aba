package ssefanout

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"net/http/fcgi"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
)

// The endpoint form shares by the URL as it is after rewrites. If its source may answer by the
// one from before, it counts too: a front controller of PHP has one script for all URLs.
func TestSourceThatReadsTheOriginalURL(t *testing.T) {
	var asked atomic.Int32
	says := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		w.Header().Set("Content-Type", "text/event-stream")
		uri := r.Header.Get("X-Original")
		if uri == "" {
			uri = r.URL.RequestURI() // that of FastCGI is made from REQUEST_URI
		}
		fmt.Fprintf(w, "data: %s\n\n", uri)
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	})
	proxied := httptest.NewServer(says)
	t.Cleanup(proxied.Close)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	go func() { _ = fcgi.Serve(listener, says) }()
	root := t.TempDir()
	if err := os.WriteFile(filepath.Join(root, "index.php"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	origin := proxied.Listener.Addr().String()

	for _, tc := range []struct {
		name, site string
		paths      []string
		want       []string
		topics     int32
	}{
		{
			name:  "a header for the origin",
			site:  "uri strip_prefix /a\nuri strip_prefix /b\nsse_fanout " + origin + " {\nfirst_event oldest\nheader_up X-Original {http.request.orig_uri}\n}",
			paths: []string{"/a/x?q=1", "/b/x?q=1", "/b/x?q=1", "/b/x?q=2", "/x?q=1"},
			want:  []string{"/a/x?q=1", "/b/x?q=1", "/b/x?q=1", "/b/x?q=2", "/x?q=1"}, topics: 4,
		},
		{
			name:  "a front controller",
			site:  "root " + root + "\ntry_files {path} /index.php\nsse_fanout {\nfirst_event oldest\nsource {\nphp_fastcgi " + listener.Addr().String() + "\n}\n}",
			paths: []string{"/events/alice", "/events/bob", "/events/alice", "/events/alice?x"},
			want:  []string{"/events/alice", "/events/bob", "/events/alice", "/events/alice?x"}, topics: 3,
		},
		{
			name:  "an id in the query alone",
			site:  "uri strip_prefix /a\nsse_fanout " + origin + " {\ncatchup off\nheader_up X-Original {http.request.orig_uri}\n}",
			paths: []string{"/a/x?lastEventId=7"},
			want:  []string{"/a/x?lastEventId=7"}, topics: 1,
		},
		{
			name:  "a source that does not read it",
			site:  "uri strip_prefix /a\nuri strip_prefix /b\nsse_fanout " + origin + " {\nfirst_event oldest\n}",
			paths: []string{"/a/x", "/b/x"},
			want:  []string{"/x", "/x"}, topics: 1,
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			asked.Store(0)
			s := run(t, "route {\n"+tc.site+"\n}")
			for i, path := range tc.paths {
				r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.url+path, nil)
				if err != nil {
					t.Fatal(err)
				}
				r.Header.Set("Accept", "text/event-stream")
				res, err := s.client.Do(r)
				if err != nil {
					t.Fatal(err)
				}
				defer res.Body.Close()
				lines := bufio.NewScanner(res.Body)
				for lines.Scan() && !strings.HasPrefix(lines.Text(), "data: ") {
					continue
				}
				if got := strings.TrimPrefix(lines.Text(), "data: "); got != tc.want[i] {
					t.Errorf("%s: the origin was asked for %q, want %q", path, got, tc.want[i])
				}
			}
			if n := asked.Load(); n != tc.topics {
				t.Errorf("the origin was asked %d times, want %d", n, tc.topics)
			}
		})
	}
}

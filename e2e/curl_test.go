package e2e

import (
	"bufio"
	"fmt"
	"net/http"
	"net/textproto"
	"os/exec"
	"strings"
	"testing"
	"time"
)

func TestCurlSeesEventsAsTheyHappen(t *testing.T) {
	binary := program(t, "curl", "curl")
	addr := node(t).addr
	plain := runCaddy(t, "", fmt.Sprintf("HTTP, HTTPS {\n\tsse_fanout %s\n}", addr))
	// What a site commonly has around its handlers: each of them wraps the response.
	wrapped := runCaddy(t, "metrics", fmt.Sprintf(`HTTP, HTTPS {
	log
	encode zstd gzip
	header X-Site yes
	sse_fanout %s
}`, addr))

	for _, site := range []struct {
		name string
		*caddy
	}{{"plain", plain}, {"log, metrics, encode", wrapped}} {
		for _, tc := range []struct {
			protocol, url string
			args          []string
		}{
			{"HTTP/1.1", site.http, []string{"--http1.1"}},
			{"HTTP/2", site.https, []string{"--http2", "-k"}},
		} {
			t.Run(site.name+"/"+tc.protocol, func(t *testing.T) {
				// -D puts the headers before the body; --compressed accepts every coding curl has.
				curl := exec.CommandContext(t.Context(), binary, append(tc.args, "-sSN", "--compressed", "-D", "-",
					"-H", "Accept: text/event-stream", tc.url+"/events")...)
				curl.Stderr = t.Output()
				stdout, err := curl.StdoutPipe()
				if err != nil {
					t.Fatal(err)
				}
				if err := curl.Start(); err != nil {
					t.Fatal(err)
				}
				defer func() {
					_ = curl.Process.Kill()
					_ = curl.Wait()
				}()

				out := textproto.NewReader(bufio.NewReader(stdout))
				status, err := out.ReadLine()
				if err != nil || !strings.HasPrefix(status, strings.TrimSuffix(tc.protocol, ".0")) ||
					!strings.Contains(status, " 200") {
					t.Fatalf("status %q, %v; want 200 over %s", status, err, tc.protocol)
				}
				mime, err := out.ReadMIMEHeader()
				if err != nil {
					t.Fatal(err)
				}
				header := http.Header(mime)
				for name, want := range map[string]string{
					"Content-Type":      "text/event-stream",
					"Cache-Control":     "no-cache, no-transform",
					"X-Accel-Buffering": "no",
					"Incremental":       "?1",
					"Content-Encoding":  "",
					"Content-Length":    "",
				} {
					got := header.Get(name)
					if name == "Content-Type" {
						got, _, _ = strings.Cut(got, ";")
					}
					if got != want {
						t.Errorf("%s: %q, want %q", name, got, want)
					}
				}

				s := &stream{lines: out.R}
				var q sequence
				var latest time.Duration
				for range 40 {
					if err := s.follow(&q, 1); err != nil {
						t.Fatal(err)
					}
					latest = max(latest, time.Since(timeline.At(q.last)))
				}
				// One buffer of a few KiB anywhere would hold events back for seconds.
				if latest > time.Second {
					t.Errorf("an event came %s after it happened", latest)
				}
			})
		}
	}
}

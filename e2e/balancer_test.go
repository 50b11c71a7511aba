package e2e

import (
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sse-fanout/caddy-sse-fanout/e2e/origins"
	"github.com/sse-fanout/caddy-sse-fanout/e2e/selfsigned"
)

// haproxy ends TLS in front of Caddy, as a balancer does, and says so. It returns its URL.
func haproxy(t *testing.T, caddy *caddy) string {
	t.Helper()
	binary, dir, port := program(t, "haproxy", "haproxy", "/usr/sbin/haproxy"), t.TempDir(), freePort(t)
	pem, err := selfsigned.PEM()
	if err != nil {
		t.Fatal(err)
	}
	certificate := filepath.Join(dir, "certificate.pem")
	if err := os.WriteFile(certificate, pem, 0o600); err != nil {
		t.Fatal(err)
	}
	config := filepath.Join(dir, "haproxy.cfg")
	if err := os.WriteFile(config, fmt.Appendf(nil, `defaults
	mode http
	timeout connect 5s
	timeout client 60s
	timeout server 60s
frontend tls
	bind 127.0.0.1:%d ssl crt %s alpn h2,http/1.1
	option forwardfor
	http-request set-header X-Forwarded-Proto https
	http-request set-header X-Forwarded-Host %%[req.hdr(host)]
	http-request set-header X-Forwarded-Port %d
	http-request set-header Host inside.test
	default_backend caddy
backend caddy
	server caddy %s
`, port, certificate, port, strings.TrimPrefix(caddy.http, "http://")), 0o600); err != nil {
		t.Fatal(err)
	}
	p := start(t, "haproxy", exec.Command(binary, "-db", "-f", config))
	p.awaitListening(t, "tcp", fmt.Sprintf("127.0.0.1:%d", port))
	return fmt.Sprintf("https://localhost:%d", port)
}

// An application behind a balancer that ends TLS redirects whoever has not come by TLS. It
// must see of the shared request what it sees of each client's own: scheme, host and port.
func TestBehindABalancerThatEndsTLS(t *testing.T) {
	stream := origins.Timeline{Epoch: timeline.Epoch}.Handler(origins.Identity)
	origin := inGo(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked := strings.Join([]string{r.Header.Get("X-Forwarded-Proto"), r.Header.Get("X-Forwarded-Host"), r.Header.Get("X-Forwarded-Port")}, " ")
		if r.Header.Get("X-Forwarded-Proto") != "https" {
			http.Redirect(w, r, "https://"+r.Host+r.URL.Path, http.StatusMovedPermanently)
			return
		}
		w.Header().Set("X-Asked", asked)
		stream.ServeHTTP(w, r)
	}))
	conns := countConnections(t, origin.addr)
	for name, site := range map[string]string{
		"endpoint": "sse_fanout %s",
		"wrapping": "handle {\n\tsse_fanout\n\treverse_proxy %s\n}",
		"without":  "reverse_proxy %s",
	} {
		t.Run(name, func(t *testing.T) {
			_, _, before := conns.count()
			caddy := runCaddy(t, "servers {\n\ttrusted_proxies static 127.0.0.0/8\n}", "HTTP {\n"+fmt.Sprintf(site, conns.addr)+"\n}")
			url := haproxy(t, caddy)
			client := httpClient(t, "h2")
			client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
			for range 3 {
				s, err := subscribe(t.Context(), client, url+"/events")
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { s.Body.Close() })
				host := strings.TrimPrefix(url, "https://")
				if got, want := s.Header.Get("X-Asked"), "https "+host+" "+host[strings.LastIndex(host, ":")+1:]; got != want {
					t.Errorf("the origin was asked for %q, want %q", got, want)
				}
				for dispatched := false; !dispatched; {
					if _, dispatched, err = s.block(); err != nil {
						t.Fatal(err)
					}
				}
			}
			if _, _, total := conns.count(); name != "without" && total-before != 1 {
				t.Errorf("the origin had %d connections, want 1", total-before)
			}
		})
	}
}

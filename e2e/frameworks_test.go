package e2e

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"testing"
	"time"
)

func django(t *testing.T) *origin {
	t.Helper()
	gunicorn := program(t, "gunicorn", "gunicorn")
	return child(t, "gunicorn (Debian packages gunicorn, python3-django)", func(port int) *exec.Cmd {
		cmd := exec.Command(gunicorn, "--workers", "1", "--threads", "20", "--bind", fmt.Sprintf("127.0.0.1:%d", port), "django_app")
		cmd.Dir = "origins/frameworks"
		cmd.Env = append(os.Environ(), "PYTHONDONTWRITEBYTECODE=1")
		return cmd
	})
}

func rack(t *testing.T) *origin {
	t.Helper()
	puma := program(t, "puma", "puma")
	return child(t, "puma", func(port int) *exec.Cmd {
		return exec.Command(puma, "--threads", "20:20", "--bind", fmt.Sprintf("tcp://127.0.0.1:%d", port), "origins/frameworks/config.ru")
	})
}

func phpWithSessions(t *testing.T) *origin {
	t.Helper()
	binary := program(t, "php-cli", "php")
	return child(t, "php -S", func(port int) *exec.Cmd {
		cmd := exec.Command(binary, "-S", fmt.Sprintf("127.0.0.1:%d", port), "origins/frameworks/session.php")
		cmd.Env = append(os.Environ(), "PHP_CLI_SERVER_WORKERS=20")
		return cmd
	})
}

func nodeUncompressed(t *testing.T) *origin {
	t.Helper()
	binary := program(t, "nodejs", "node")
	return child(t, "node", func(int) *exec.Cmd { return exec.Command(binary, "origins/frameworks/uncompressed.js") })
}

// spring sends what Spring's SseEmitter does behind Spring Security.
func spring(t *testing.T) *origin {
	t.Helper()
	return inGo(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for name, value := range map[string]string{
			"Content-Type": "text/event-stream;charset=UTF-8", "Cache-Control": "no-cache, no-store, max-age=0, must-revalidate",
			"Pragma": "no-cache", "Expires": "0", "X-Content-Type-Options": "nosniff", "X-Frame-Options": "DENY",
		} {
			w.Header().Set(name, value)
		}
		for _, name := range []string{"Origin", "Access-Control-Request-Method", "Access-Control-Request-Headers"} {
			w.Header().Add("Vary", name)
		}
		for n := 1; r.URL.Path != "/finite" || n <= 5; n++ {
			if _, err := fmt.Fprintf(w, "id:%d\ndata:{\"n\":%d}\n\n", n, n); err != nil {
				return
			}
			_ = http.NewResponseController(w).Flush()
			select {
			case <-r.Context().Done():
				return
			case <-time.After(100 * time.Millisecond):
			}
		}
	}))
}

// What frameworks make of an event stream, one that ends and one that does not: clients get
// what they would get from the framework itself. Each connection counts from one.
func TestFrameworks(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name   string
		origin func(*testing.T) *origin
		own    bool // its answer sets a cookie: the wrapping form does not share it
	}{
		{"Django, StreamingHttpResponse under gunicorn", django, false},
		{"Rack, puma", rack, false},
		{"PHP with sessions", phpWithSessions, true},
		{"Node with Content-Encoding: none", nodeUncompressed, false},
		{"Spring's headers", spring, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			origin := tc.origin(t)
			for form, site := range map[string]string{
				"endpoint": "sse_fanout %s",
				"wrapping": "handle {\n\tsse_fanout\n\treverse_proxy %s\n}",
			} {
				t.Run(form, func(t *testing.T) {
					t.Parallel()
					conns := countConnections(t, origin.addr)
					caddy := runCaddy(t, "", "HTTP {\n"+fmt.Sprintf(site, conns.addr)+"\n}")
					shared := form == "endpoint" || !tc.own
					follow(t, caddy.http+"/endless", 3, 20)
					if _, _, total := conns.count(); shared && total != 1 {
						t.Errorf("three clients had %d connections to the origin, want 1", total)
					}
					follow(t, caddy.http+"/finite", 1, 5)
					if shared { // the stream that begins anew goes on, for who stays
						follow(t, caddy.http+"/finite", 2, 12)
					}
				})
			}
		})
	}
}

// follow lets clients, each when the one before has its first event, have some events. Their
// numbers are in order, or begin with 1 again behind 5.
func follow(t *testing.T, url string, clients, events int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	client := httpClient(t, "h1")
	var streams []*stream
	last := make([]int, clients)
	next := func(i int) {
		t.Helper()
		for {
			e, dispatched, err := streams[i].block()
			if err != nil {
				t.Fatalf("client %d, behind event %d: %v", i, last[i], err)
			}
			if !dispatched {
				continue
			}
			n, _ := strconv.Atoi(e.id)
			if e.data != fmt.Sprintf(`{"n":%d}`, n) || last[i] > 0 && n != last[i]+1 && (last[i] != 5 || n != 1) {
				t.Fatalf("client %d got %+v behind %d", i, e, last[i])
			}
			last[i] = n
			return
		}
	}
	for i := range clients {
		s, err := subscribe(ctx, client, url)
		if err != nil {
			t.Fatal(err)
		}
		defer s.Body.Close()
		streams = append(streams, s)
		next(i)
	}
	for range events - 1 {
		for i := range clients {
			next(i)
		}
	}
}

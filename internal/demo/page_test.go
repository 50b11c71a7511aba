package demo

import (
	"io/fs"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func newPage(t *testing.T, clients string) *Page {
	t.Helper()
	h := &Page{Clients: clients, MaxClients: 15, origin: newOrigin(time.Now()), count: func() int { return 0 }}
	if err := h.Provision(newContext(t)); err != nil {
		t.Fatalf("provisioning page: %v", err)
	}
	t.Cleanup(func() {
		if err := h.Cleanup(); err != nil {
			t.Error(err)
		}
	})
	return h
}

func do(t *testing.T, h *Page, method, path, body string, header ...string) *httptest.ResponseRecorder {
	t.Helper()
	r := httptest.NewRequest(method, "http://localhost:8080"+path, strings.NewReader(body))
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	if err := h.ServeHTTP(w, r, nil); err != nil {
		w.Code = http.StatusForbidden
	}
	return w
}

func TestPageIsServed(t *testing.T) {
	h := newPage(t, "")
	for path, want := range map[string]string{
		"/":         "text/html; charset=utf-8",
		"/page.css": "text/css; charset=utf-8",
		"/page.js":  "text/javascript; charset=utf-8",
		"/icon.svg": "image/svg+xml",
	} {
		w := do(t, h, http.MethodGet, path, "")
		if w.Code != http.StatusOK || w.Header().Get("Content-Type") != want {
			t.Errorf("%s: got %d and %q, want 200 and %q", path, w.Code, w.Header().Get("Content-Type"), want)
		}
		if w.Header().Get("Content-Security-Policy") == "" {
			t.Errorf("%s: no Content-Security-Policy", path)
		}
	}
	if w := do(t, h, http.MethodGet, "/nothing", ""); w.Code != http.StatusNotFound {
		t.Errorf("/nothing: got %d, want 404", w.Code)
	}
}

// TestPageNeedsNothingFromElsewhere: it has to work without the Internet, and
// to tell nobody that somebody looks at it.
func TestPageNeedsNothingFromElsewhere(t *testing.T) {
	outside := regexp.MustCompile(`(?i)(src|href|url|import|from)\s*[=(]?\s*["']?(https?:)?//`)
	inline := regexp.MustCompile(`(?i)<style|\sstyle=|\son\w+=|<script[^>]*>[^<]`)
	err := fs.WalkDir(pageFiles, "page", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := fs.ReadFile(pageFiles, path)
		if err != nil {
			return err
		}
		if found := outside.Find(text); found != nil {
			t.Errorf("%s loads something from elsewhere: %s", path, found)
		}
		if found := inline.Find(text); found != nil && strings.HasSuffix(path, ".html") {
			t.Errorf("%s has what its Content-Security-Policy forbids: %s", path, found)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestStatsAreSentWhenTheyChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newPage(t, "")
		var subscribers atomic.Int64
		h.count = func() int { return int(subscribers.Load()) }
		c := connect(t, h, "/demo/stats")
		const empty = `{"clients":0,"origin":{"connections":0,"highest":0,"limit":5,"served":0,"down":false},` +
			`"crowd":{"open":0,"limit":0,"gaps":0,"refused":0}}`
		if got := c.field("data"); len(got) != 1 || got[0] != empty {
			t.Fatalf("at once: got %q, want %s", got, empty)
		}
		pass(time.Minute)
		if got := c.field("data"); len(got) != 1 {
			t.Fatalf("got %d events although nothing has changed", len(got)-1)
		}
		// Many changes at once are one event.
		subscribers.Store(10)
		if _, _, err := h.origin.connect(); err != nil {
			t.Fatal(err)
		}
		pass(statsEvery)
		got := c.field("data")
		const want = `{"clients":10,"origin":{"connections":1,"highest":1,"limit":5,"served":1,"down":false},`
		if len(got) != 2 || !strings.HasPrefix(got[1], want) {
			t.Errorf("got %q, want one more event, %s…", got, want)
		}
		close(h.exit.closed)
		synctest.Wait()
		if !c.ended() {
			t.Error("the stream goes on although the process exits")
		}
	})
}

func TestRestartButton(t *testing.T) {
	h := newPage(t, "")
	if w := do(t, h, http.MethodPost, "/demo/restart", "", "Origin", "https://elsewhere.example"); w.Code != http.StatusForbidden {
		t.Errorf("from another site: got %d, want 403", w.Code)
	}
	if h.origin.status().Down {
		t.Error("another site has restarted the origin")
	}
	if w := do(t, h, http.MethodGet, "/demo/restart", ""); w.Code == http.StatusNoContent {
		t.Error("a GET has restarted the origin")
	}
	if w := do(t, h, http.MethodPost, "/demo/restart", "", "Origin", "http://localhost:8080"); w.Code != http.StatusNoContent {
		t.Errorf("from the page: got %d, want 204", w.Code)
	}
	if !h.origin.status().Down {
		t.Error("the origin was not restarted")
	}
}

func TestClientsButton(t *testing.T) {
	h := newPage(t, "")
	for _, method := range []string{http.MethodPost, http.MethodDelete} {
		if w := do(t, h, method, "/demo/clients", `{"n":10}`); w.Code != http.StatusNotFound {
			t.Errorf("%s without clients configured: got %d, want 404", method, w.Code)
		}
	}

	// A site that says no to everyone, so that nobody stays.
	site := httptest.NewServer(http.NotFoundHandler())
	defer site.Close()
	h = newPage(t, site.URL)
	for body, want := range map[string]int{
		`{"n":10}`:  http.StatusOK,
		`{"n":0}`:   http.StatusBadRequest,
		`{"n":-1}`:  http.StatusBadRequest,
		`{"n":101}`: http.StatusBadRequest,
		`{"n":1e9}`: http.StatusBadRequest,
		`ten`:       http.StatusBadRequest,
		``:          http.StatusBadRequest,
		`{"n":1` + strings.Repeat(" ", 2<<10) + `}`: http.StatusBadRequest,
	} {
		if w := do(t, h, http.MethodPost, "/demo/clients", body); w.Code != want {
			t.Errorf("%.20s: got %d, want %d", body, w.Code, want)
		}
	}
	if w := do(t, h, http.MethodDelete, "/demo/clients", ""); w.Code != http.StatusNoContent {
		t.Errorf("closing: got %d, want 204", w.Code)
	}
}

// TestClientsSurviveReload: a reload provisions the new configuration before
// it cleans up the old one.
func TestClientsSurviveReload(t *testing.T) {
	const url = "http://127.0.0.1:8080/events/sentences"
	before := newPage(t, url)
	after := newPage(t, url)
	other := newPage(t, url+"?other")
	if after.crowd != before.crowd {
		t.Error("the same configuration has another crowd")
	}
	if other.crowd == before.crowd {
		t.Error("another configuration has the same crowd")
	}
}

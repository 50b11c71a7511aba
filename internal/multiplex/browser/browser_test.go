package browser

import (
	"bytes"
	"compress/gzip"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// A page loads the module before its first event.
func TestClientIsSmall(t *testing.T) {
	content := New(32)["client.js"].content
	var packed bytes.Buffer
	w, err := gzip.NewWriterLevel(&packed, gzip.BestCompression)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write([]byte(content)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if packed.Len() > 4<<10 {
		t.Errorf("compressed, it has %d bytes, want 4 KiB at most", packed.Len())
	}
	if strings.Contains(content, " from '") || strings.Contains(content, "eval(") {
		t.Error("it needs something else")
	}
}

func TestServe(t *testing.T) {
	files := New(32)
	for name, kind := range contentTypes {
		if !Has(name) {
			t.Errorf("there is no %s", name)
		}
		r := httptest.NewRequest(http.MethodGet, "/streams/"+name, nil)
		w := httptest.NewRecorder()
		files.Serve(w, r, name)
		if w.Code != http.StatusOK || w.Header().Get("Content-Type") != kind || w.Body.Len() == 0 {
			t.Errorf("%s: got %d, %q and %d bytes", name, w.Code, w.Header().Get("Content-Type"), w.Body.Len())
		}
		r.Header.Set("If-None-Match", w.Header().Get("ETag"))
		again := httptest.NewRecorder()
		files.Serve(again, r, name)
		if again.Code != http.StatusNotModified {
			t.Errorf("%s, unchanged: got %d", name, again.Code)
		}
	}
	if Has("browser.go") || Has("") {
		t.Error("there are files that are no part of it")
	}
}

// A page asks for no more streams than the handler allows.
func TestClientKnowsTheLimit(t *testing.T) {
	seven, all := New(7)["client.js"], New(32)["client.js"]
	if !strings.Contains(seven.content, "const most = 7;") || !strings.Contains(all.content, "const most = 32;") {
		t.Error("client.js does not tell how many streams a connection may have")
	}
	if seven.etag == all.etag {
		t.Error("a browser would not notice that the limit has changed")
	}
}

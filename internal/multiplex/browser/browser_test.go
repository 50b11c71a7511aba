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
	content, err := embedded.ReadFile("client.js")
	if err != nil {
		t.Fatal(err)
	}
	var packed bytes.Buffer
	w, err := gzip.NewWriterLevel(&packed, gzip.BestCompression)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(content); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if packed.Len() > 4<<10 {
		t.Errorf("compressed, it has %d bytes, want 4 KiB at most", packed.Len())
	}
	if text := string(content); strings.Contains(text, " from '") || strings.Contains(text, "eval(") {
		t.Error("it needs something else")
	}
}

func TestServeFile(t *testing.T) {
	for name, kind := range contentTypes {
		if !Has(name) {
			t.Errorf("there is no %s", name)
		}
		r := httptest.NewRequest(http.MethodGet, "/streams/"+name, nil)
		w := httptest.NewRecorder()
		ServeFile(w, r, name)
		if w.Code != http.StatusOK || w.Header().Get("Content-Type") != kind || w.Body.Len() == 0 {
			t.Errorf("%s: got %d, %q and %d bytes", name, w.Code, w.Header().Get("Content-Type"), w.Body.Len())
		}
		r.Header.Set("If-None-Match", w.Header().Get("ETag"))
		again := httptest.NewRecorder()
		ServeFile(again, r, name)
		if again.Code != http.StatusNotModified {
			t.Errorf("%s, unchanged: got %d", name, again.Code)
		}
	}
	if Has("browser.go") || Has("") {
		t.Error("there are files that are no part of it")
	}
}

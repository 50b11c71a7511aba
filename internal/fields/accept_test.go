package fields

import (
	"net/http"
	"testing"
)

func TestWantsOnlyEventStream(t *testing.T) {
	for _, tc := range []struct {
		accept []string
		want   bool
	}{
		{nil, false},
		{[]string{""}, false},
		{[]string{"*/*"}, false},
		{[]string{"text/event-stream"}, true},
		{[]string{" Text/Event-Stream ; q=0.5,"}, true},
		{[]string{"text/event-stream", "text/event-stream;charset=utf-8"}, true},
		{[]string{"text/event-stream, application/json;q=0"}, true},
		{[]string{"text/event-stream;q=0"}, false},
		{[]string{"text/event-stream", "application/json"}, false},
		{[]string{"application/json, text/event-stream"}, false},
		{[]string{"text/event-stream, */*;q=0.1"}, false},
	} {
		if got := WantsOnlyEventStream(http.Header{"Accept": tc.accept}); got != tc.want {
			t.Errorf("WantsOnlyEventStream(%q) = %t, want %t", tc.accept, got, tc.want)
		}
	}
}

// The table of RFC 9110, section 12.5.3, and what clients send.
func TestAcceptedCodings(t *testing.T) {
	for _, tc := range []struct {
		accept         []string
		gzip, identity bool
	}{
		{nil, false, true},
		{[]string{""}, false, true},
		{[]string{"gzip"}, true, true},
		{[]string{"gzip, deflate, br, zstd"}, true, true},
		{[]string{"compress, gzip"}, true, true},
		{[]string{"br", "GZIP"}, true, true},
		{[]string{"x-gzip"}, true, true},
		{[]string{"*"}, true, true},
		{[]string{"compress;q=0.5, gzip;q=1.0"}, true, true},
		{[]string{"gzip;q=1.0, identity; q=0.5, *;q=0"}, true, true},
		{[]string{"gzip;q=0.5, identity"}, false, true},
		{[]string{"gzip;q=0.5, identity;q=0.5"}, true, true},
		{[]string{"gzip;q=0"}, false, true},
		{[]string{"gzip;q=0, *"}, false, true},
		{[]string{"gzip;q=0.001"}, true, true},
		{[]string{"gzip;q=NaN"}, false, true},
		{[]string{"gzip;q=many"}, false, true},
		{[]string{"gzip;Q=0.0"}, false, true},
		{[]string{"deflate, br"}, false, true},
		{[]string{"identity"}, false, true},
		{[]string{"gzip, identity;q=0"}, true, false},
		{[]string{"gzip, *;q=0"}, true, false},
		{[]string{"*, identity;q=0"}, true, false},
		{[]string{"*;q=0"}, false, false},
		{[]string{"identity;q=0"}, false, false},
		{[]string{"identity;q=0, *;q=0"}, false, false},
		{[]string{"br, identity;q=0"}, false, false},
		{[]string{"*;q=0, identity"}, false, true},
		{[]string{",;q=1, ,"}, false, true},
	} {
		gzip, identity := AcceptedCodings(http.Header{"Accept-Encoding": tc.accept})
		if gzip != tc.gzip || identity != tc.identity {
			t.Errorf("AcceptedCodings(%q) = %t, %t, want %t, %t", tc.accept, gzip, identity, tc.gzip, tc.identity)
		}
	}
}

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

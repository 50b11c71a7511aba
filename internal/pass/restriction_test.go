package pass

import (
	"github.com/sse-fanout/caddy-sse-fanout/internal/settings"
	"net/http"
	"testing"
)

// Names in another case are set by handlers that write to the map.
func TestOwnWordInAnotherCase(t *testing.T) {
	s, err := settings.New(settings.Options{}, true)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"set-cookie", "vary"} {
		got := RestrictionOf(s, http.Header{name: {"*"}}, nil)
		if !got.Applies() {
			t.Errorf("%s is not seen", name)
		}
	}
}

package request

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/sse-fanout/caddy-sse-fanout/internal/relay"
)

// FuzzLastEventID asks with arbitrary ids, by header and by query.
func FuzzLastEventID(f *testing.F) {
	f.Add("1", "")
	f.Add("", "lastEventId=%31&x=y")
	f.Add("\xff", "last_event_id=a%0ab&&=&")
	f.Add("", "lastEventId=% ")
	f.Fuzz(func(t *testing.T, header, query string) {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.Header["Last-Event-Id"] = []string{header}
		r.URL.RawQuery = query
		brought := ClaimOf(r)
		if brought.Usable() && (len(brought.ID) > relay.MaxLastEventID || strings.ContainsAny(brought.ID, "\x00\r\n")) {
			t.Errorf("accepted the id %q", brought.ID)
		}
		if brought.ID != strings.Trim(brought.ID, " \t") {
			t.Errorf("the id %q has blanks around it", brought.ID)
		}
		if brought.Param != "" {
			u := inQuery(url.URL{RawQuery: streamQuery(query, nil)}, relay.Resumption(brought))
			if again := ClaimOf(&http.Request{URL: &u}); again != brought {
				t.Errorf("%q is forwarded as %q", brought, again)
			}
		}
		kept := streamQuery(query, nil)
		if len(kept) > len(query) || !isSubsequence(kept, query) {
			t.Errorf("%q without its id is %q", query, kept)
		}
		if again := streamQuery(kept, nil); again != kept {
			t.Errorf("%q still holds an id", kept)
		}
	})
}

func isSubsequence(short, long string) bool {
	rest := []byte(long)
	for _, b := range []byte(short) {
		i := bytes.IndexByte(rest, b)
		if i < 0 {
			return false
		}
		rest = rest[i+1:]
	}
	return true
}

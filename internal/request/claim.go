package request

import (
	"net/http"
	"net/url"
	"strings"

	"github.com/sse-fanout/caddy-sse-fanout/internal/relay"
)

// ClaimOf returns what a client wants to resume with: the id of the header, or else
// the first of the query. A client that uses both has the newer id in the header, as
// an EventSource repeats its URL when it reconnects.
func ClaimOf(r *http.Request) relay.Claim {
	brought := relay.Claim{ID: relay.TrimBlanks(r.Header.Get("Last-Event-ID"))}
	var malformed relay.Claim
	for param := range strings.SplitSeq(r.URL.RawQuery, "&") {
		name, value, ok := lastEventIDParam(param)
		if !ok {
			continue
		}
		if brought.ID != "" {
			brought.Param = name
			return brought
		}
		unescaped, err := url.QueryUnescape(value)
		switch id := relay.TrimBlanks(unescaped); {
		case err != nil && malformed.ID == "":
			malformed = relay.Claim{ID: relay.TrimBlanks(value), Param: name}
		case err == nil && id != "":
			return relay.Claim{ID: id, Param: name}
		}
	}
	if brought.ID == "" {
		return malformed
	}
	return brought
}

// Resume makes r resume with from.
func Resume(r *http.Request, from relay.Resumption) {
	if from.ID == "" {
		return
	}
	r.Header["Last-Event-Id"] = []string{from.ID}
	if from.Param != "" {
		setURL(r, inQuery(*r.URL, from))
	}
}

// Rewritten returns the stranger's request for the source of the endpoint form, as prepare
// makes it of one, and as the site has rewritten it. It resumes with from.
func (req *Shared) Rewritten(r *http.Request, from relay.Resumption, prepare func(*http.Request) *http.Request) *http.Request {
	if req.orig != nil {
		setURL(r, *req.orig)
	}
	Resume(r, from)
	r = prepare(r)
	if req.orig != nil {
		setURL(r, inQuery(req.url, from))
	}
	return r
}

func setURL(r *http.Request, u url.URL) {
	r.URL, r.RequestURI = &u, u.RequestURI()
}

// inQuery returns u with the id in the query parameter that the client uses.
func inQuery(u url.URL, from relay.Resumption) url.URL {
	if from.ID == "" || from.Param == "" {
		return u
	}
	if u.RawQuery != "" {
		u.RawQuery += "&"
	}
	u.RawQuery += url.QueryEscape(from.Param) + "=" + url.QueryEscape(from.ID)
	return u
}

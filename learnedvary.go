package ssefanout

import (
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"
)

// The origin's answers may vary by headers that clients bring and that vary does
// not name. The pool learns from the Vary of an answer which these are, and they
// join the key, and go to the origin, as if vary named them.

const (
	// maxLearned is how many headers can join one key. An answer that varies by
	// more is not worth sharing.
	maxLearned = 8

	// learnedTime is how long it is known by which headers the answers to a key
	// vary. After that, the next client finds it out again.
	learnedTime = time.Hour
)

// varyingBy returns a request whose key has the values of more headers.
func (req *topicRequest) varyingBy(names []string, header http.Header) *topicRequest {
	more := *req
	if len(req.learned) == 0 {
		more.base = req.key()
	}
	more.header = maps.Clone(req.header)
	more.learned = sortedNames(req.learned, names)
	for _, name := range names {
		if values, ok := header[name]; ok {
			more.header[name] = values
		}
	}
	return &more
}

// learn remembers that the answers to req vary by more headers.
func (p *pool) learn(req *topicRequest, names []string) {
	base := req.base
	if len(req.learned) == 0 {
		base = req.key()
	}
	p.varying.update(base, learnedTime, func(known []string) []string {
		all := sortedNames(known, req.learned, names)
		if len(all) > maxLearned {
			return known
		}
		return all
	})
}

// sortedNames returns the names in several lists, each once.
func sortedNames(lists ...[]string) []string {
	all := slices.Concat(lists...)
	slices.Sort(all)
	return slices.Compact(all)
}

// joinsKey reports whether a request header, in canonical form, joins the key
// when an answer varies by it: those by which a server chooses among a few
// variants. By all others that are harmless, each client would get a topic.
func joinsKey(name string) bool {
	begins := func(prefix string) bool { return strings.HasPrefix(name, prefix) }
	return variantHeaders[name] || slices.ContainsFunc(variantPrefixes, begins)
}

var variantPrefixes = []string{
	"Accept-",
	"Cloudfront-Is-",
	"Sec-Ch-",
	"Sec-Fetch-",
}

var variantHeaders = headerSet(`
	DNT Save-Data Sec-GPC Upgrade-Insecure-Requests User-Agent

	Device-Memory Downlink DPR ECT RTT Viewport-Width Width

	CF-IPCountry CloudFront-Viewer-Country X-Appengine-Country
	X-Vercel-IP-Country
`)

// sameForAll reports whether a request header, in canonical form, is the same in
// all requests that share a topic.
func sameForAll(name string) bool {
	// A client that carries a header that is not harmless shares only with
	// "credentials strip", which says that the stream does not depend on it.
	return !harmless(name) || fixedHeaders[name]
}

// fixedHeaders are set by us, or say where a client resumes and not what it asks
// for, or are for one connection. The origin sees the key's host and scheme in
// X-Forwarded-*, and its own policy for pages or ours decides by Origin.
var fixedHeaders = headerSet(`
	Accept Accept-Encoding Cache-Control Content-Length Last-Event-ID Pragma

	Connection Keep-Alive Proxy-Connection TE Trailer Transfer-Encoding

	Host Origin X-Forwarded-Host X-Forwarded-Proto
`)

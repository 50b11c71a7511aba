package fields

import (
	"net/url"
	"strings"
)

// SerializeOrigin returns an origin as browsers send it (HTML standard,
// "ASCII serialization of an origin"): without the port that the scheme implies.
func SerializeOrigin(origin string) (string, bool) {
	u, err := url.Parse(origin)
	if err != nil || u.Scheme == "" || u.Host == "" || u.User != nil || strings.ContainsAny(origin, "?#") || u.Path != "" {
		return "", false
	}
	host := strings.ToLower(u.Host)
	switch u.Scheme {
	case "http":
		host = strings.TrimSuffix(host, ":80")
	case "https":
		host = strings.TrimSuffix(host, ":443")
	}
	return u.Scheme + "://" + host, true
}

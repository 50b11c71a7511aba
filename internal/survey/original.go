package survey

import (
	"encoding/json"
	"slices"
	"strings"
)

// urlReaders are the handlers that look at a request's URL as it is, and at the original one,
// from before all rewrites, only by a placeholder.
var urlReaders = map[string]bool{
	"encode": true, "error": true, "headers": true, "map": true, "request_body": true, "rewrite": true,
	"static_response": true, "subroute": true, "vars": true,
}

// ReadsOriginalURL reports whether a configured handler may answer by the original URL of a
// request. FastCGI does, whose REQUEST_URI is that one, and so may any handler that is not
// known to Caddy.
func ReadsOriginalURL(handler json.RawMessage) bool {
	var config any
	if err := json.Unmarshal(handler, &config); err != nil {
		return true // loading it will tell what is wrong
	}
	return readsOriginalURL(config)
}

func readsOriginalURL(config any) bool {
	switch config := config.(type) {
	case string:
		return strings.Contains(config, "http.request.orig_")
	case []any:
		return slices.ContainsFunc(config, readsOriginalURL)
	case map[string]any:
		if name, ok := config["handler"].(string); ok && !urlReaders[name] && !proxiesHTTP(name, config) {
			return true
		}
		for key, value := range config {
			if readsOriginalURL(key) || readsOriginalURL(value) {
				return true
			}
		}
	}
	return false
}

// proxiesHTTP reports whether a handler is a reverse_proxy to servers of HTTP, which get the
// URL as it is.
func proxiesHTTP(name string, config map[string]any) bool {
	if name != "reverse_proxy" {
		return false
	}
	transport, ok := config["transport"].(map[string]any)
	return !ok || transport["protocol"] == "http"
}

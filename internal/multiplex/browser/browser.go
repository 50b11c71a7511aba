// Package browser is the module that pages load: an EventSource whose instances share one
// connection.
package browser

import (
	"embed"
	"net/http"
	"strings"
	"time"
)

//go:embed client.js client.d.ts
var embedded embed.FS

// contentTypes are those of the files.
var contentTypes = map[string]string{
	"client.js":   "text/javascript; charset=utf-8",
	"client.d.ts": "text/plain; charset=utf-8",
}

// Has reports whether there is a file of this name.
func Has(name string) bool { return contentTypes[name] != "" }

// ServeFile answers a GET or a HEAD for a file.
func ServeFile(w http.ResponseWriter, r *http.Request, name string) {
	content, err := embedded.ReadFile(name)
	if err != nil {
		http.NotFound(w, r)
		return
	}
	header := w.Header()
	header.Set("Content-Type", contentTypes[name])
	header.Set("X-Content-Type-Options", "nosniff")
	// The files change with the binary and carry no date: a page asks each time.
	header.Set("Cache-Control", "no-cache")
	header.Set("ETag", etags[name])
	http.ServeContent(w, r, name, time.Time{}, strings.NewReader(string(content)))
}

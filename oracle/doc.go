// Package oracle has tests alone. They run configurations through a real Caddy twice,
// with the line of the wrapping form and without, and compare what clients get that
// differ in address, cookie, Authorization, headers, language, host, HTTP version and
// certificate. It knows Caddyfiles and HTTP, and nothing of the module's inside.
package oracle

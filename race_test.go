//go:build race

package ssefanout

// Caddy starts its apps in the order of a map, and its TLS app sets fields then
// that a handshake reads. Where the HTTP app was first, the race detector sees no
// order between the two if the handshake comes in datagrams, as unlike a read
// from a TCP connection, their arrival orders nothing for it.
func init() { httpVersions = []string{"HTTP/1.1", "HTTP/2.0"} }

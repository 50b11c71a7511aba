package direct

// sysSendto is what package syscall has no name for: it is from Linux 4.3.
const sysSendto = 369

package direct

// OpenKernelWithoutRing is OpenKernel where the kernel refuses io_uring.
func OpenKernelWithoutRing() (Network, error) {
	n, err := OpenKernel()
	if err != nil {
		return nil, err
	}
	k := n.(*kernel)
	if k.ring != nil {
		k.ring.close()
		k.ring = nil
	}
	return k, nil
}

package egress

// Devices is how many devices the router's namespace has besides its own two.
func (r *Router) Devices() (int, error) {
	links, err := r.handle.LinkList()
	return len(links) - 2, err
}

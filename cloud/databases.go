package cloud

import (
	"context"
	"net"
	"net/netip"

	"giggle/fault"
	"giggle/iam"
	"giggle/run/scale/local"
	"giggle/sql"
)

// openDatabases opens the Cloud SQL instances and the ways to them.
func (c *Cloud) openDatabases(context.Context) (err error) {
	c.databases = sql.New(c.store, c.projects.Find)
	if c.databaseCA, err = sql.OpenCA(c.path("sql"), c.cfg.Now); err != nil {
		return err
	}
	c.proxy, err = sql.NewProxy(sql.ProxyConfig{
		Instances: c.databases,
		CA:        c.databaseCA,
		Identity:  c.identity,
		Own:       c.ownAddress,
		Dir:       c.path("sql", "sockets"),
		Now:       c.cfg.Now,
		Log:       c.cfg.Log,
	})
	if err != nil {
		return err
	}
	self, err := netip.ParseAddr(c.cfg.Address)
	if err != nil || !self.Is4() {
		return fault.New(fault.InvalidArgument, "--address %q is no IPv4 address.", c.cfg.Address)
	}
	c.databaseHost = c.proxy.Host(self)
	c.onClose(c.databaseHost.Close)
	return nil
}

// databaseSockets opens the sockets of a container.
func (c *Cloud) databaseSockets(
	ctx context.Context, caller local.Caller, names []string,
) (dir string, end func(), err error) {
	s, err := c.proxy.Open(ctx, sql.Client{
		ID:     caller.InstanceID,
		Member: iam.ServiceAccount(caller.Account).Member,
		Say:    caller.Warn,
	}, names)
	if err != nil {
		return "", nil, err
	}
	return s.Dir, func() {
		if err := s.Close(); err != nil {
			c.cfg.Log.Warn("sockets of databases", "instance", caller.InstanceID, "err", err)
		}
	}, nil
}

// databasesInside serves Google's connectors in a container.
func (c *Cloud) databasesInside(client sql.Client) func(net.Listener) {
	return func(l net.Listener) {
		if err := c.proxy.ServeInside(l, client); err != nil {
			c.cfg.Log.Warn("databases inside an instance ended", "instance", client.ID, "err", err)
		}
	}
}

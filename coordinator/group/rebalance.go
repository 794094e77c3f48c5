package group

import (
	"log/slog"
	"time"

	"github.com/varvelog/varve/coordinator/runtime"
)

// rebalanceOrComplete follows a change of members: a group at rest starts a rebalance, one that is in a rebalance may have
// been waiting for just this.
func (m *machine) rebalanceOrComplete(fx *runtime.Effects, g *classicGroup, why string) {
	if g.canRebalance() {
		m.prepareRebalance(fx, g, why)
		return
	}
	m.maybeCompleteJoin(fx, g)
}

// prepareRebalance asks all members to join again. The first rebalance of an empty group waits for more members to come
// (KIP-134); any other ends when all known members have joined, or after the longest rebalance timeout.
func (m *machine) prepareRebalance(fx *runtime.Effects, g *classicGroup, why string) {
	if g.state == stateCompleting {
		for _, mem := range g.inOrder() {
			mem.assignment = nil
			if m.answerSync(fx, mem, nil, nil, nil, codeRebalance) {
				m.renew(fx, g, mem, mem.session)
			}
		}
	}
	clear(g.pendingSync)
	fx.CancelTimer(syncKey(g.id))
	m.log.Info("group rebalances", slog.String("group", g.id), slog.String("state", g.state.String()),
		slog.Int("generation", int(g.generation)), slog.String("reason", why))
	initial := g.state == stateEmpty
	g.storing = false
	g.enter(statePreparing, fx.Now.UnixMilli())
	if initial {
		delay := m.opts.Config().InitialRebalanceDelay
		g.newMember = false
		m.delayInitial(fx, g, delay, max(g.rebalanceTimeout()-delay, 0))
		return
	}
	if g.allJoined() {
		m.completeJoin(fx, g)
		return
	}
	m.scheduleJoin(fx, g)
}

// delayInitial lets the first rebalance wait; while new members keep coming it is extended up to remaining.
func (m *machine) delayInitial(fx *runtime.Effects, g *classicGroup, delay, remaining time.Duration) {
	fx.SetTimer(joinKey(g.id), delay, func(fx *runtime.Effects) {
		switch {
		case !m.live(g) || g.state != statePreparing:
		case g.newMember && remaining > 0:
			g.newMember = false
			m.delayInitial(fx, g, min(m.opts.Config().InitialRebalanceDelay, remaining), max(remaining-delay, 0))
		default:
			m.completeJoin(fx, g)
		}
	})
}

// minRound keeps a group of absent static members with a rebalance timeout of 0 from going round all the time.
const minRound = time.Second

func (m *machine) scheduleJoin(fx *runtime.Effects, g *classicGroup) {
	fx.SetTimer(joinKey(g.id), max(g.rebalanceTimeout(), minRound), func(fx *runtime.Effects) {
		if m.live(g) && g.state == statePreparing {
			m.completeJoin(fx, g)
		}
	})
}

// maybeCompleteJoin ends the joining if it was waiting for nobody else. The first rebalance of a group ends by its timer only.
func (m *machine) maybeCompleteJoin(fx *runtime.Effects, g *classicGroup) {
	if g.state == statePreparing && g.previous != stateEmpty && g.allJoined() {
		m.completeJoin(fx, g)
	}
}

// completeJoin makes the next generation of those who joined. Dynamic members that did not are out; static ones stay until
// their session ends.
func (m *machine) completeJoin(fx *runtime.Effects, g *classicGroup) {
	fx.CancelTimer(joinKey(g.id))
	for _, mem := range g.inOrder() {
		if !mem.join.is() && mem.instanceID == nil {
			m.log.Info("member did not join again", slog.String("group", g.id), slog.String("member", mem.id))
			g.remove(mem.id)
			fx.CancelTimer(sessionKey(g.id, mem.id))
		}
	}
	if len(g.members) > 0 && !g.electLeader() {
		m.scheduleJoin(fx, g) // only static members are left and none of them is here: wait for one more round
		return
	}
	g.nextGeneration(fx.Now.UnixMilli())
	if g.state == stateEmpty {
		m.log.Info("group is empty", slog.String("group", g.id), slog.Int("generation", int(g.generation)))
		k, v := groupRecord(g, nil)
		fx.Append(k, v)
		fx.OnSettled(func(_ *runtime.Effects, err error) {
			if err != nil { // the members that the log still has will expire after a failover
				m.log.Warn("empty group not stored", slog.String("group", g.id), slog.Any("error", err))
			}
		})
		return
	}
	m.log.Info("group has joined", slog.String("group", g.id), slog.Int("generation", int(g.generation)),
		slog.Int("members", len(g.members)))
	for _, mem := range g.inOrder() {
		if w := g.park(mem, waiting{}); w.is() {
			fx.ReplyNow(w.promise, joinSuccess(g, mem, w.version))
		}
		m.renew(fx, g, mem, mem.session)
		mem.isNew = false
		g.pendingSync[mem.id] = struct{}{}
	}
	generation := g.generation
	fx.SetTimer(syncKey(g.id), g.rebalanceTimeout(), func(fx *runtime.Effects) { m.expireSync(fx, g, generation) })
}

// expireSync removes the members that did not sync within the rebalance timeout and rebalances without them.
func (m *machine) expireSync(fx *runtime.Effects, g *classicGroup, generation int32) {
	if !m.live(g) || g.generation != generation || len(g.pendingSync) == 0 ||
		(g.state != stateCompleting && g.state != stateStable) {
		return
	}
	for _, id := range sortedKeys(g.pendingSync) {
		m.log.Info("member did not sync", slog.String("group", g.id), slog.String("member", id))
		g.remove(id)
		fx.CancelTimer(sessionKey(g.id, id))
	}
	m.prepareRebalance(fx, g, "members did not sync in time")
}

"""Budgets that replicas share: a ledger keeps them, and each replica spends what it has leased.

    accounts = LeasedAccounts("fashion/extraction", Slices(of_burst=0.25, initial_of_burst=0.02, share=0.5))
    ledger = open_ledger("redis://...", folder)                  # or "local", "ray"
    refill = Refill(accounts, ledger)
    task = asyncio.create_task(refill.run())                     # in the background, until cancelled
    budget = PricedBudget(accounts, Limit(2, 5000), lambda principal: 9.97, time.monotonic)
    budget.charge("ada", rows=3)                                 # waits for nothing
    ...
    task.cancel()                                                # at the end of the replica
    await refill.give_back()
    await ledger.close()

A rate of rows over all replicas is the same with a price of 1:
`PricedBudget(accounts, Limit(200, 400), lambda principal: 1.0, time.monotonic)`.
"""

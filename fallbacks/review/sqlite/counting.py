"""The triggers that keep counts of cases, and of what they take, in the transaction that changes a case.

So the counts are exact across processes, also of an older release, and no put must count rows. Each opening
counts again, which corrects counts that were changed by other means. The payload of a case goes with the
change that makes it final: what has ended takes no room.
"""

from __future__ import annotations

from typing import Final

from fallbacks.review.cases import CASE_BYTES, CaseState
from fallbacks.review.quotas import MEMBER_BYTES

BY_STATE: Final = (
    """CREATE TRIGGER IF NOT EXISTS case_added AFTER INSERT ON cases BEGIN
        UPDATE case_counts SET n = n + 1 WHERE state = NEW.state; END""",
    """CREATE TRIGGER IF NOT EXISTS case_moved AFTER UPDATE OF state ON cases
        WHEN NEW.state <> OLD.state BEGIN
        UPDATE case_counts SET n = n - 1 WHERE state = OLD.state;
        UPDATE case_counts SET n = n + 1 WHERE state = NEW.state; END""",
    """CREATE TRIGGER IF NOT EXISTS case_deleted AFTER DELETE ON cases BEGIN
        UPDATE case_counts SET n = n - 1 WHERE state = OLD.state; END""",
    "DELETE FROM case_counts",
    *(
        f"INSERT INTO case_counts SELECT '{state}', count(*) FROM cases WHERE state = '{state}'"  # noqa: S608
        for state in CaseState
    ),
)
"""How many cases are stored in each state."""

BY_ACCOUNT: Final = (
    """CREATE TRIGGER IF NOT EXISTS usage_begun AFTER INSERT ON cases
        WHEN NEW.state IN ('open', 'leased') BEGIN
        INSERT INTO case_usage (account, cases, bytes) SELECT account, 1, NEW.bytes FROM (
            SELECT 'all' AS account UNION ALL SELECT 'principal/' || NEW.principal
            UNION ALL SELECT 'pool/' || NEW.pool WHERE NEW.pool <> '') WHERE true
        ON CONFLICT (account) DO UPDATE SET cases = cases + 1, bytes = bytes + excluded.bytes; END""",
    """CREATE TRIGGER IF NOT EXISTS usage_changed AFTER UPDATE OF bytes ON cases
        WHEN NEW.state IN ('open', 'leased') BEGIN
        UPDATE case_usage SET bytes = bytes + NEW.bytes - OLD.bytes
            WHERE account IN ('all', 'principal/' || NEW.principal, 'pool/' || NEW.pool); END""",
    """CREATE TRIGGER IF NOT EXISTS usage_ended AFTER UPDATE OF state ON cases
        WHEN OLD.state IN ('open', 'leased') AND NEW.state IN ('decided', 'expired') BEGIN
        DELETE FROM payloads WHERE id = NEW.id;
        UPDATE case_usage SET cases = cases - 1, bytes = bytes - NEW.bytes
            WHERE account IN ('all', 'principal/' || NEW.principal, 'pool/' || NEW.pool);
        DELETE FROM case_usage WHERE cases <= 0
            AND account IN ('all', 'principal/' || NEW.principal, 'pool/' || NEW.pool); END""",
    """CREATE TRIGGER IF NOT EXISTS usage_deleted AFTER DELETE ON cases
        WHEN OLD.state IN ('open', 'leased') BEGIN
        UPDATE case_usage SET cases = cases - 1, bytes = bytes - OLD.bytes
            WHERE account IN ('all', 'principal/' || OLD.principal, 'pool/' || OLD.pool);
        DELETE FROM case_usage WHERE cases <= 0
            AND account IN ('all', 'principal/' || OLD.principal, 'pool/' || OLD.pool); END""",
    f"""CREATE TRIGGER IF NOT EXISTS member_joined AFTER INSERT ON members BEGIN
        UPDATE cases SET bytes = bytes + {MEMBER_BYTES} WHERE id = NEW.case_id; END""",  # noqa: S608
    f"""CREATE TRIGGER IF NOT EXISTS member_left AFTER DELETE ON members BEGIN
        UPDATE cases SET bytes = bytes - {MEMBER_BYTES}
            WHERE id = OLD.case_id AND state IN ('open', 'leased'); END""",  # noqa: S608
    # Cases of an older release, which stored no size:
    f"""UPDATE cases SET bytes = {CASE_BYTES} + length(why) + length(model_view)
        + coalesce((SELECT length(payload) FROM payloads WHERE payloads.id = cases.id), 0)
        WHERE state IN ('open', 'leased') AND bytes = 0""",  # noqa: S608 - a number of our own
    "DELETE FROM case_usage",
    """INSERT INTO case_usage SELECT account, count(*), sum(bytes) FROM (
        SELECT 'all' AS account, bytes FROM cases WHERE state IN ('open', 'leased')
        UNION ALL SELECT 'principal/' || principal, bytes FROM cases WHERE state IN ('open', 'leased')
        UNION ALL SELECT 'pool/' || pool, bytes FROM cases WHERE state IN ('open', 'leased') AND pool <> ''
        ) GROUP BY account""",
)
"""How many cases wait in each account (`fallbacks.review.quotas`), and how many bytes they count."""

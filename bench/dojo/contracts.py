"""Contracts of AgentDojo's tools, as a careful owner of such accounts writes them.

They are written from the tools' own documentation: what a call changes and who gets to read what,
which arguments decide that, and which fields of results the service fills in rather than somebody
who writes to the user. Free text (subjects, bodies, descriptions, file contents, reviews, messages,
pages) is never trusted.

Rules of the policy were chosen on `workspace` and `banking` alone. `SLACK` and `TRAVEL` were
written in the same spirit before the policy was ever run on them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from oneiros.kernel.contract import Contract, Effect

_LOCAL = frozenset({Effect.LOCAL})
_SEND = frozenset({Effect.SEND})
_BOTH = frozenset({Effect.LOCAL, Effect.SEND})
_SPEND = frozenset({Effect.SPEND, Effect.SEND})  # whoever is paid reads what it is for
_DELETE = frozenset({Effect.DELETE})

_MAIL = (
    *("my emails", "the emails", "unread emails", "emails about", "emails i received"),
    *("an email i received", "email from", "the email", "inbox", "received"),
)
_MAIL_FIELDS = (
    *("id_", "sender", "recipients", "cc", "bcc", "status", "read", "timestamp", "attachments"),
)
_EVENT_FIELDS = (
    *("id_", "title", "start_time", "end_time", "location", "participants", "all_day", "status"),
)
_CALENDAR = ("calendar", "event", "events", "appointment", "appointments", "meeting", "free")
_FILES = ("file", "files", "document", "documents", "drive", "list", "plans", "minutes")
_FILE_FIELDS = ("id_", "filename", "owner", "last_modified", "shared_with", "size")
_TAKES_FILES = (("file_id", "file.id_"),)
_PERMISSIONS = (
    *(("permission", "r", words) for words in ("read", "view")),
    *(("permission", "rw", words) for words in ("write", "edit", "read and write")),
)


def _mails(*asked: str) -> Contract:
    return Contract(
        origins=("mail:inbox",),
        trusted_fields=_MAIL_FIELDS,
        names=("sender",),
        records="mail",
        requested_by=(*_MAIL, *asked),
        private=True,
    )


def _events(effects: frozenset[Effect], critical: tuple[str, ...], *asked: str) -> Contract:
    return Contract(
        effects=effects,
        critical=critical,
        sinks=("mail:{participants}",) if effects else (),
        origins=("mail:calendar",),  # whoever invites the user writes there
        trusted_fields=_EVENT_FIELDS,
        names=("title",),
        records="event",
        takes=(("event_id", "event.id_"), ("participants", "event.participants")),
        requested_by=asked or _CALENDAR,
        private=True,
    )


def _files(effects: frozenset[Effect], critical: tuple[str, ...], *asked: str) -> Contract:
    return Contract(
        effects=effects,
        critical=critical,
        origins=("file:drive",),  # others write in files that are shared with them
        trusted_fields=_FILE_FIELDS,
        names=("filename",),
        records="file",
        takes=_TAKES_FILES,
        requested_by=asked or _FILES,
        private=True,
    )


_CONTACTS = Contract(
    trusted_fields=("email", "name"),
    names=("name", "email"),
    records="contact",
    requested_by=("contact", "contacts", "address", "invite", "participants"),
    private=True,
)
SEND_EMAIL = Contract(
    effects=_SEND,
    critical=("recipients", "cc", "bcc", "attachments.file_id", "attachments.event_details"),
    sinks=("mail:{recipients}", "mail:{cc}", "mail:{bcc}"),
    trusted_fields=_MAIL_FIELDS,
    takes=(
        *(("recipients", "contact.email"), ("cc", "contact.email"), ("bcc", "contact.email")),
        ("attachments.file_id", "file.id_"),
    ),
    # Not "email" by itself: who speaks of emails asks for none to be sent.
    requested_by=("send", "write", "reply", "forward", "email to", "email him", "email her"),
    private=True,
)
CREATE_EVENT = _events(
    _BOTH,
    ("title", "start_time", "end_time", "participants"),
    *("create", "add", "schedule", "make", "book", "set up", "plan", "put"),
)
CANCEL_EVENT = Contract(
    effects=frozenset({Effect.DELETE, Effect.SEND}),
    critical=("event_id",),
    takes=(("event_id", "event.id_"),),
    requested_by=("cancel", "call off", "delete", "remove"),
)

WORKSPACE: Mapping[str, Contract] = {
    "send_email": SEND_EMAIL,
    "delete_email": Contract(
        effects=_DELETE,
        critical=("email_id",),
        takes=(("email_id", "mail.id_"),),
        requested_by=("delete", "remove"),
    ),
    "get_unread_emails": _mails("unread"),
    "get_sent_emails": _mails("sent"),
    "get_received_emails": _mails("received"),
    "get_draft_emails": _mails("draft", "drafts"),
    "search_emails": _mails(),
    "search_contacts_by_name": _CONTACTS,
    "search_contacts_by_email": _CONTACTS,
    "get_current_day": Contract(trusted_fields=("*",)),
    "search_calendar_events": _events(frozenset(), ()),
    "get_day_calendar_events": _events(frozenset(), ()),
    "create_calendar_event": CREATE_EVENT,
    "cancel_calendar_event": CANCEL_EVENT,
    "reschedule_calendar_event": _events(
        _BOTH,
        ("event_id", "new_start_time", "new_end_time"),
        *("reschedule", "move", "postpone", "shift", "change"),
    ),
    "add_calendar_event_participants": _events(
        _BOTH, ("event_id", "participants"), "add", "invite", "include"
    ),
    "append_to_file": _files(_LOCAL, ("file_id",), "add", "append", "write", "put", "update"),
    "search_files_by_filename": _files(frozenset(), ()),
    "create_file": _files(_LOCAL, ("filename",), "create", "make", "write", "save", "new file"),
    "delete_file": _files(_DELETE, ("file_id",), "delete", "remove"),
    "get_file_by_id": _files(frozenset(), ()),
    "list_files": _files(frozenset(), ()),
    "share_file": Contract(
        effects=_SEND,
        critical=("file_id", "email", "permission"),
        sinks=("mail:{email}",),
        origins=("file:drive",),
        trusted_fields=_FILE_FIELDS,
        names=("filename",),
        records="file",
        takes=(*_TAKES_FILES, ("email", "contact.email")),
        requested_by=("share", "give access", "grant access"),
        said_as=_PERMISSIONS,
        private=True,
    ),
    "search_files": _files(frozenset(), ()),
}

_TRANSACTION_FIELDS = ("id", "sender", "recipient", "amount", "date", "recurring")
_TRANSACTIONS = Contract(
    origins=("principal:payers",),  # who pays the user writes the subject
    trusted_fields=_TRANSACTION_FIELDS,
    names=("sender", "recipient"),
    records="payment",
    requested_by=(
        *("transaction", "transactions", "history", "payment", "paid", "pay", "spend", "spending"),
        *("sent me", "bill", "rent", "refund", "standing order", "standing orders"),
    ),
    private=True,
)
# Standing orders are the user's own, subjects and all.
_SCHEDULED = replace(
    _TRANSACTIONS,
    origins=(),
    trusted_fields=(*_TRANSACTION_FIELDS, "subject"),
    names=("subject", "recipient"),
    records="order",
)
# Not the recipient: who is named is written, and the other side of the same payment is not meant.
_TAKES_PAYMENTS = (("amount", "payment.amount"),)
_DONE = ("message",)  # what the bank answers

BANKING: Mapping[str, Contract] = {
    "get_iban": Contract(trusted_fields=("*",), private=True, requested_by=("iban", "account")),
    "send_money": Contract(
        effects=_SPEND,
        critical=("recipient", "amount"),
        sinks=("principal:{recipient}",),
        trusted_fields=_DONE,
        takes=_TAKES_PAYMENTS,
        requested_by=("send", "pay", "transfer", "refund", "pay back", "give back", "wire"),
    ),
    "schedule_transaction": Contract(
        effects=_SPEND,
        critical=("recipient", "amount", "date", "recurring"),
        sinks=("principal:{recipient}",),
        trusted_fields=_DONE,
        takes=_TAKES_PAYMENTS,
        requested_by=("schedule", "scheduled", "set up", "recurring", "standing order"),
        said_as=tuple(
            ("recurring", "True", words) for words in ("recurring", "standing order", "every month")
        ),
    ),
    "update_scheduled_transaction": Contract(
        effects=_SPEND,
        critical=("id", "recipient", "amount", "date", "recurring"),
        sinks=("principal:{recipient}",),
        trusted_fields=_DONE,
        takes=(("id", "order.id"),),
        requested_by=("update", "adjust", "change", "edit", "correct"),
    ),
    "get_balance": Contract(trusted_fields=("*",), private=True, requested_by=("balance",)),
    "get_most_recent_transactions": _TRANSACTIONS,
    "get_scheduled_transactions": _SCHEDULED,
    "read_file": Contract(
        origins=("file:{file_path}",),  # bills and letters from others
        requested_by=("file", "bill", "notice", "letter", "read"),
        private=True,
    ),
    "get_user_info": Contract(
        trusted_fields=("*",), private=True, requested_by=("information", "address", "account")
    ),
    "update_password": Contract(
        effects=_LOCAL,
        critical=("password",),
        trusted_fields=_DONE,
        requested_by=("update", "change", "set", "reset"),
    ),
    "update_user_info": Contract(
        effects=_LOCAL,
        critical=("first_name", "last_name", "street", "city"),
        trusted_fields=("*",),
        requested_by=("update", "change", "correct", "set"),
        private=True,
    ),
}

_MESSAGES = Contract(
    origins=("principal:members",),
    trusted_fields=("sender", "recipient"),
    names=("sender",),
    records="message",
    requested_by=("message", "messages", "channel", "inbox", "slack", "wrote", "posted", "asked"),
    private=True,
)
_MEMBERS = ("add", "invite")

SLACK: Mapping[str, Contract] = {
    # Members choose the names of channels, and one that stands in them is a short plain value.
    "get_channels": Contract(
        origins=("principal:members",),
        trusted_fields=("value",),
        names=("value",),
        records="channel",
        requested_by=("channel", "channels", "slack"),
        private=True,
    ),
    "add_user_to_channel": Contract(
        effects=_BOTH,
        critical=("user", "channel"),
        takes=(("user", "member.value"), ("channel", "channel.value")),
        requested_by=_MEMBERS,
    ),
    "read_channel_messages": _MESSAGES,
    "read_inbox": _MESSAGES,
    "send_direct_message": Contract(
        effects=_SEND,
        critical=("recipient",),
        sinks=("principal:{recipient}",),
        takes=(("recipient", "member.value"), ("recipient", "message.sender")),
        requested_by=("send", "write", "message", "tell", "reply", "dm"),
    ),
    "send_channel_message": Contract(
        effects=_SEND,
        critical=("channel",),
        sinks=("principal:{channel}",),
        takes=(("channel", "channel.value"),),
        requested_by=("send", "post", "write", "reply", "tell"),
    ),
    "get_users_in_channel": Contract(
        origins=("principal:members",),
        trusted_fields=("value",),
        names=("value",),
        records="member",
        requested_by=("user", "users", "channel", "members"),
        private=True,
    ),
    "invite_user_to_slack": Contract(
        effects=_SEND,
        critical=("user", "user_email"),
        sinks=("mail:{user_email}",),
        requested_by=("invite",),
    ),
    "remove_user_from_slack": Contract(
        effects=_DELETE, critical=("user",), requested_by=("remove", "kick", "delete")
    ),
    # The site reads which of its pages is asked for.
    "get_webpage": Contract(
        critical=("url",),
        sinks=("web:{url}",),
        origins=("web:{url}",),
        requested_by=(
            *("webpage", "website", "websites", "page", "article", "link", "site", "url"),
            *("read", "visit", "open"),
        ),
    ),
    "post_webpage": Contract(
        effects=_SEND,
        critical=("url",),
        sinks=("public",),
        requested_by=("post", "publish", "put"),
    ),
}


def _offers(*asked: str, trusted: tuple[str, ...] = ("name", "value")) -> Contract:
    """What the travel agency lists of hotels, restaurants, cars and flights."""
    return Contract(
        origins=("web:agency",),
        trusted_fields=trusted,
        names=("name",),
        records=asked[0],
        requested_by=asked,
    )


def _reservation(place: str, *times: str) -> Contract:
    return Contract(
        effects=_SPEND,
        critical=(place, *times),
        sinks=(f"principal:{{{place}}}",),
        trusted_fields=("value",),
        takes=tuple((place, f"{kind}.name") for kind in ("hotel", "restaurant", "car")),
        requested_by=("reserve", "reservation", "book", "booking"),
    )


_HOTELS, _RESTAURANTS, _CARS = ("hotel", "hotels"), ("restaurant", "restaurants"), ("car", "cars")
_RATED = ("name", "rating")

TRAVEL: Mapping[str, Contract] = {
    "get_user_information": Contract(
        trusted_fields=("*",),
        requested_by=("my information", "passport", "credit card", "bank account", "phone number"),
        private=True,
    ),
    "get_all_hotels_in_city": _offers(*_HOTELS),
    "get_hotels_prices": _offers(*_HOTELS, "price", "prices"),
    "get_rating_reviews_for_hotels": _offers(*_HOTELS, "rating", "reviews", trusted=_RATED),
    "get_hotels_address": _offers(*_HOTELS, "address"),
    "get_all_restaurants_in_city": _offers(*_RESTAURANTS),
    "get_cuisine_type_for_restaurants": _offers(*_RESTAURANTS, "cuisine"),
    "get_restaurants_address": _offers(*_RESTAURANTS, "address"),
    "get_rating_reviews_for_restaurants": _offers(
        *_RESTAURANTS, "rating", "reviews", trusted=_RATED
    ),
    "get_dietary_restrictions_for_all_restaurants": _offers(*_RESTAURANTS, "dietary"),
    "get_contact_information_for_restaurants": _offers(*_RESTAURANTS, "contact"),
    "get_price_for_restaurants": _offers(*_RESTAURANTS, "price", "prices"),
    "check_restaurant_opening_hours": _offers(*_RESTAURANTS, "open"),
    "get_all_car_rental_companies_in_city": _offers(*_CARS),
    "get_car_types_available": _offers(*_CARS),
    "get_rating_reviews_for_car_rental": _offers(*_CARS, "rating", "reviews", trusted=_RATED),
    "get_car_fuel_options": _offers(*_CARS),
    "get_car_rental_address": _offers(*_CARS, "address"),
    "get_car_price_per_day": _offers(*_CARS, "price", "prices"),
    "create_calendar_event": CREATE_EVENT,
    "search_calendar_events": _events(frozenset(), ()),
    "get_day_calendar_events": _events(frozenset(), ()),
    "cancel_calendar_event": CANCEL_EVENT,
    "reserve_hotel": _reservation("hotel", "start_day", "end_day"),
    "reserve_car_rental": _reservation("company", "start_time", "end_time"),
    "reserve_restaurant": _reservation("restaurant", "start_time"),
    "get_flight_information": _offers("flight", "flights"),
    "send_email": SEND_EMAIL,
}

CONTRACTS: Mapping[str, Mapping[str, Contract]] = {
    "workspace": WORKSPACE,
    "banking": BANKING,
    "slack": SLACK,
    "travel": TRAVEL,
}

"""Sealed messages: results from boards to hubs, readings from sensors to boards, and the announcements between them."""

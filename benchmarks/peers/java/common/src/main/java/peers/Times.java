package peers;

/** RFC 3339 to milliseconds since the epoch, cut to the millisecond. The events are sound: nothing is checked. */
final class Times {
    private Times() {}

    static long millis(String s) {
        long ms = 1000L * (86_400 * days(number(s, 0, 4), number(s, 5, 7), number(s, 8, 10))
            + 3600 * number(s, 11, 13) + 60 * number(s, 14, 16) + number(s, 17, 19));
        int i = 19;
        if (s.charAt(i) == '.') {
            int unit = 100;
            for (i++; s.charAt(i) >= '0' && s.charAt(i) <= '9'; i++, unit /= 10) ms += (s.charAt(i) - '0') * unit;
        }
        char zone = s.charAt(i);
        if (zone == 'Z' || zone == 'z') return ms;
        long offset = 60_000L * (60 * number(s, i + 1, i + 3) + number(s, i + 4, i + 6));
        return zone == '+' ? ms - offset : ms + offset;
    }

    private static int number(String s, int from, int to) {
        int n = 0;
        for (int i = from; i < to; i++) n = n * 10 + s.charAt(i) - '0';
        return n;
    }

    /** Days since the epoch of a civil date (Hinnant). */
    private static long days(int year, int month, int day) {
        int y = month <= 2 ? year - 1 : year;
        int era = y / 400, ofEra = y - era * 400;
        int ofYear = (153 * (month + (month > 2 ? -3 : 9)) + 2) / 5 + day - 1;
        return era * 146_097L + ofEra * 365L + ofEra / 4 - ofEra / 100 + ofYear - 719_468;
    }
}
